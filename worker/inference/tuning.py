"""Warms up with ever longer texts, and measures the best size of a forward pass.

A small pass wastes the start of each kernel, and a large one does not fit the processor's caches.
The best size depends on the machine. Both measurements end after some seconds.

Owns: the texts of the warm-up, and the sizes that are tried.
Thread: load, before a record is read.
Must not import: torch, transformers.
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

SIZES = {
    "cpu": (256, 512, 1024, 2048, 4096),
    "cuda": (1024, 2048, 4096, 8192, 16384, 32768, 65536),
}
# Seconds that a start may spend on it. A size whose pass would end later is skipped.
_TIME_LIMIT = 2.0
# Tokens of a text that is always part of the warm-up, and seconds for longer ones. A CPU takes
# hours for a context of 131,072 tokens.
_ALWAYS, _LONGER_TEXTS = 512, 20.0
# A machine that is busy for a moment slows one pass down, and rarely all tries of a size.
_TRIES = 4
# A size may be slower by this share than the fastest and is preferred if it is smaller: smaller
# passes have a lower latency and need less memory.
_SLOWER = 0.03


@dataclass(frozen=True, slots=True)
class WarmUpTexts:
    """Yields a short text, then ever longer ones, up to the longest that the model takes.

    Ends earlier, with a warning, if the longest texts would take too long.

    Args:
        tokenise: tokenises one text.
        longest: tokens of the longest text that the model takes.
        clock: times the passes, which run between one text and the next.
    """

    tokenise: Callable[[str], ModelInput]
    longest: int
    clock: Clock

    def __iter__(self) -> Iterator[ModelInput]:
        """Yield the texts, tokenised."""
        yield self.tokenise("warm up")
        began, words = self.clock.monotonic(), min(_ALWAYS, self.longest)
        while True:
            start = self.clock.monotonic()
            text = self.tokenise("warm up " * words)
            yield text
            now = self.clock.monotonic()
            if max(text.tokens, words) >= self.longest:
                return
            # The time of attention grows with the square of a text's tokens.
            if now - began + 4 * (now - start) > _LONGER_TEXTS:
                get_logger(__name__).warning(
                    "warm-up skipped the longest texts, which are slow on this machine: a record of "
                    "max_tokens may be reported as a stall; lower model.max_tokens to prevent that",
                    tokens=text.tokens,
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
    """Return the smallest of `sizes` with nearly the highest throughput, in tokens a second.

    Args:
        run: runs one forward pass.
        rows: ids of typical texts, which are repeated to fill a pass.
        sizes: tokens of a pass, ascending.
        clock: times the passes.
        pads: True if a pass computes the rectangle around its texts, False if only their tokens.

    Raises:
        OutOfMemory: the smallest size does not fit the memory. Larger sizes that fail once are not
            returned.
    """
    passes = [(size, _pass_of(size, rows, pads=pads)) for size in sizes]
    speeds = dict.fromkeys(sizes, 0.0)
    began, speed, too_large = clock.monotonic(), math.inf, math.inf
    for size, model_input in passes * _TRIES:
        start = clock.monotonic()
        if size >= too_large or start - began + model_input.tokens / speed > _TIME_LIMIT:
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
    return _near_best({size: speed for size, speed in speeds.items() if size < too_large})


def _near_best(speeds: dict[int, float]) -> int:
    enough = (1 - _SLOWER) * max(speeds.values())
    return next(size for size, speed in speeds.items() if speed >= enough)


def _pass_of(size: int, rows: Sequence[Sequence[int]], *, pads: bool) -> ModelInput:
    """Repeat the rows until they fill a pass of this size."""
    budget, taken = ForwardBudget(size, pads=pads), list[tuple[int, ...]]()
    for row in cycle(rows):
        wider = [*taken, tuple(row)]
        if taken and budget.cost(_input(wider)) > size:
            return _input(sorted(taken, key=len, reverse=True))
        taken = wider
    raise ValueError("no rows to fill a pass with")


def _input(rows: Sequence[tuple[int, ...]]) -> ModelInput:
    return ModelInput(tuple(rows), tuple(range(len(rows))), (False,) * len(rows))
