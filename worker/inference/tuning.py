"""The texts of a warm-up, ever longer ones, and its passes of several sizes, to find the best.

A small pass wastes the start of each kernel, a large one falls out of the processor's caches; where
the best lies, the machine knows alone. Both end after some seconds. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from worker.clock import Clock
from worker.core.budget import ForwardBudget
from worker.core.records import ModelInput
from worker.errors import OutOfMemory
from worker.logs import get_logger

SIZES = {"cpu": (256, 512, 1024, 2048, 4096), "cuda": (1024, 2048, 4096, 8192, 16384)}
# Seconds; what a start pays for it, at most. A size whose pass would end later is passed over.
_PATIENCE = 2.0
# A text of so many tokens is warmed up with at any cost; longer ones may take so many seconds. A CPU
# takes hours for a context of 131,072 tokens.
_AT_ONCE, _LONGER_TEXTS = 512, 20.0
# A machine that is busy now and then slows one pass down, seldom every one of a size.
_TRIES = 4
# A smaller pass is worth this share of the speed: it answers sooner and takes less memory.
_WORTH = 0.03


@dataclass(frozen=True, slots=True)
class Rising:
    """A short text, then ever longer ones, the model's longest the last; each is made when it is due.

    It ends earlier, and says so, if time is too short for the longest one.

    Args:
        tokenise: makes the input of a text.
        longest: tokens that the model takes.
        clock: times the passes, which run between one text and the next.
    """

    tokenise: Callable[[str], ModelInput]
    longest: int
    clock: Clock

    def __iter__(self) -> Iterator[ModelInput]:
        """The texts, tokenised."""
        yield self.tokenise("warm up")
        began, words = self.clock.monotonic(), min(_AT_ONCE, self.longest)
        while True:
            start = self.clock.monotonic()
            one = self.tokenise("warm up " * words)
            yield one
            now = self.clock.monotonic()
            if max(one.tokens, words) >= self.longest:
                return
            # Attention takes the square of a text's tokens.
            if now - began + 4 * (now - start) > _LONGER_TEXTS:
                get_logger(__name__).warning(
                    "the warm-up leaves out the longest texts, which take too long here: a record "
                    "of so many tokens may count as a stall; set model.max_tokens to bound them",
                    tokens=one.tokens,
                    seconds=round(now - start, 3),
                    max_tokens=self.longest,
                )
                return
            words = min(2 * words, self.longest)


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
