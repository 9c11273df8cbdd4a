"""Arrival times of an open-loop load: a Poisson process with a fixed seed.

In an open loop, a slow worker does not delay later arrivals. A latency that is measured from the
due time therefore includes every wait; a closed loop would hide some (coordinated omission).

Owns: the due times; pure.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

# Seconds between single texts, until worker and model threads are idle again: a pass after a pause
# is slower than one right after another.
ALONE_GAP_S: Final = 0.25
_SEED: Final = 20_240_917


def arrivals(rate: float, seconds: float, seed: int = _SEED) -> Iterator[float]:
    """Yield the due time of each text, in seconds after the start; on average `rate` a second."""
    generator = random.Random(seed)
    due = generator.expovariate(rate)
    while due < seconds:
        yield due
        due += generator.expovariate(rate)
