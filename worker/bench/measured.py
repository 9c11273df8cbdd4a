"""A model in the bench of engines: its forward passes, and their times in each round.

Owns: cutting texts into passes as a worker does, and medians over the rounds.
Thread: main, in the process that measures the engine.
Must not import: kafka.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.bench.figures import EnginePoint
from worker.bench.usage import own_seconds
from worker.clock import Clock
from worker.core.budget import ForwardBudget
from worker.core.model import Classifier, Tokeniser
from worker.core.records import ModelInput
from worker.errors import OutOfMemory


@dataclass(frozen=True)
class Timing:
    """Wall and CPU seconds of one measurement."""

    seconds: float
    cpu_s: float


def timed(work: Callable[[], object], clock: Clock) -> Timing:
    """Call `work` and return its time."""
    started, used = clock.monotonic(), own_seconds()
    work()
    return Timing(clock.monotonic() - started, own_seconds() - used)


@dataclass(frozen=True)
class _Round:
    lengths: Sequence[int]  # tokens of each text
    timing: Timing

    @property
    def texts_per_s(self) -> float:
        return len(self.lengths) / self.timing.seconds

    @property
    def cpu_us_per_text(self) -> float:
        return self.timing.cpu_s * 1e6 / len(self.lengths)


class MeasuredModel:
    """One model at one token budget.

    Args:
        tokeniser: cuts and encodes the texts.
        classifier: computes the passes; warmed up.
        forward_tokens: most tokens of a pass.
        window: texts that are sorted and cut together.
        clock: measures the rounds.
    """

    def __init__(
        self,
        tokeniser: Tokeniser,
        classifier: Classifier,
        forward_tokens: int,
        window: int,
        clock: Clock,
    ) -> None:
        self._tokeniser, self._classifier, self._clock = tokeniser, classifier, clock
        self._budget, self._window = forward_tokens, window
        self._rounds: list[_Round] = []

    def passes(self, texts: Sequence[str]) -> list[ModelInput]:
        """Return the forward passes of these texts, cut as in a worker."""
        budget = ForwardBudget(self._budget, pads=self._classifier.card.pads)
        starts = range(0, len(texts), self._window)
        windows = (texts[start : start + self._window] for start in starts)
        whole = (part for window in windows for part in self._tokeniser.tokenise(window))
        return [part for model_input in whole for part in budget.cut(model_input)]

    def label(self, passes: Sequence[ModelInput]) -> None:
        """Compute forward passes."""
        for model_input in passes:
            self._classifier.predict(model_input)

    def fits(self, texts: Sequence[str]) -> bool:
        """Return whether the largest pass of these texts fits the memory."""
        try:
            self.label([max(self.passes(texts), key=lambda part: part.padded_tokens)])
        except OutOfMemory:
            return False
        return True

    def measure(self, texts: Sequence[str]) -> None:
        """Time the forward passes of one round's texts."""
        passes = self.passes(texts)
        timing = timed(lambda: self.label(passes), self._clock)
        lengths = [len(ids) for part in passes for ids in part.ids]
        self._rounds.append(_Round(lengths, timing))

    @property
    def texts_per_s(self) -> float:
        """Texts a second of the last round."""
        return self._rounds[-1].texts_per_s

    @property
    def cpu_us_per_text(self) -> float:
        """CPU microseconds a text of the last round."""
        return self._rounds[-1].cpu_us_per_text

    @property
    def tokens_per_text(self) -> float:
        """Mean tokens of a text over all rounds."""
        return statistics.mean(tokens for each in self._rounds for tokens in each.lengths)

    def flop_per_s(self, flop: Callable[[int], int]) -> float:
        """Return the median FLOP/s, with the FLOP of a text of so many tokens."""
        return statistics.median(
            sum(map(flop, each.lengths)) / each.timing.seconds for each in self._rounds
        )

    def flop_per_token(self, flop: Callable[[int], int]) -> float:
        """Return the mean FLOP of a token over all rounds."""
        lengths = [tokens for each in self._rounds for tokens in each.lengths]
        return sum(map(flop, lengths)) / sum(lengths)

    def point(self) -> EnginePoint:
        """Return the medians over the rounds."""
        rate = statistics.median(each.texts_per_s for each in self._rounds)
        tokens = (sum(each.lengths) / each.timing.seconds for each in self._rounds)
        return EnginePoint(
            forward_tokens=self._budget,
            window=self._window,
            texts_per_s=rate,
            tokens_per_s=statistics.median(tokens),
            window_s=self._window / rate,
            cpu_us_per_text=statistics.median(each.cpu_us_per_text for each in self._rounds),
        )
