"""How many tokens a forward pass had best have, found by trying.

A small pass wastes the start of each kernel, a large one falls out of the processor's caches; where
the best lies, the machine knows alone. Runs at warm-up. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import cycle

from worker.clock import Clock
from worker.core.budget import ForwardBudget
from worker.core.records import ModelInput
from worker.errors import OutOfMemory

SIZES = {"cpu": (256, 512, 1024, 2048, 4096), "cuda": (1024, 2048, 4096, 8192, 16384)}
# Seconds; what a start pays for it, at most. A size whose pass would end later is passed over.
_PATIENCE = 2.0
# A machine that is busy now and then slows one pass down, seldom every one of a size.
_TRIES = 4
# A smaller pass is worth this share of the speed: it answers sooner and takes less memory.
_WORTH = 0.03


def best_size(
    run: Callable[[ModelInput], object],
    rows: Sequence[Sequence[int]],
    sizes: Sequence[int],
    clock: Clock,
    *,
    pads: bool,
) -> int:
    """The smallest of `sizes` whose tokens a second are near the best.

    Args:
        run: one forward pass.
        rows: ids of texts such as are to come; passes are made of them, over and over.
        sizes: tokens of a pass, rising.
        clock: times the passes.
        pads: whether a pass computes the rectangle around its texts, or their tokens alone.

    Raises:
        OutOfMemory: not even the smallest fits; one that does not, be it once, is not taken.
    """
    passes = [(size, _pass_of(size, rows, pads=pads)) for size in sizes]
    speeds = dict.fromkeys(sizes, 0.0)
    began, speed, too_large = clock.monotonic(), math.inf, math.inf
    for size, model_input in passes * _TRIES:
        start = clock.monotonic()
        if size >= too_large or start - began + model_input.tokens / speed > _PATIENCE:
            continue
        try:
            run(model_input)
        except OutOfMemory:
            if size == sizes[0]:
                raise
            too_large = size
        else:
            speed = model_input.tokens / max(clock.monotonic() - start, 1e-9)
            speeds[size] = max(speeds[size], speed)
    return _near_best({size: found for size, found in speeds.items() if size < too_large})


def _near_best(speeds: dict[int, float]) -> int:
    enough = (1 - _WORTH) * max(speeds.values())
    return next(size for size, speed in speeds.items() if speed >= enough)


def _pass_of(size: int, rows: Sequence[Sequence[int]], *, pads: bool) -> ModelInput:
    """The first rows, over and over, as many as a pass of this size takes."""
    budget, taken = ForwardBudget(size, pads=pads), list[tuple[int, ...]]()
    for row in cycle(rows):
        wider = [*taken, tuple(row)]
        if taken and budget.cost(_input(wider)) > size:
            return _input(sorted(taken, key=len, reverse=True))
        taken = wider
    raise ValueError("there are no rows to make a pass of")


def _input(rows: Sequence[tuple[int, ...]]) -> ModelInput:
    return ModelInput(tuple(rows), tuple(range(len(rows))), (False,) * len(rows))
