"""When texts are due in an open-loop load: a Poisson process of a fixed seed. Pure.

Open loop: a text is due when it is due, however slow the worker is; a latency that counts from
that moment leaves no wait out (the fault known as coordinated omission).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

# Seconds between texts sent alone: the worker is idle again, and so are the model's threads, which
# makes a pass slower than one right after another.
ALONE_GAP_S: Final = 0.25
_SEED: Final = 20_240_917


def arrivals(rate: float, seconds: float, seed: int = _SEED) -> Iterator[float]:
    """Seconds after the start at which a text is due, `rate` of them a second on the average."""
    gaps = random.Random(seed)
    due = gaps.expovariate(rate)
    while due < seconds:
        yield due
        due += gaps.expovariate(rate)
