"""The circuit breaker and the readability guard as state machines.

Each oracle keeps the whole history as a list and judges it by the words of the setting.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from schemas.dead_letter import DeadLetterReason
from tests.support.records import invalid, item, raw
from worker.core.faults import RATIO_WINDOW, CircuitBreaker
from worker.core.readability import LEAST, WINDOW, Readability
from worker.core.records import InvalidRecord
from worker.errors import CircuitOpen, StreamUnreadable

_RATIOS = st.sampled_from((0.0, 0.05, 0.5, 0.9, 1.0))
_RUNS = st.sampled_from((1, 2, 7, 60, 99, 100, 101, 400, 900))


class Breaker(RuleBasedStateMachine):
    """Runs of failures and successes; the breaker opens exactly when the settings say so."""

    @initialize(in_a_row=st.sampled_from((1, 2, 100, 5_000)), ratio=_RATIOS)
    def begin(self, in_a_row: int, ratio: float) -> None:
        self.in_a_row, self.ratio = in_a_row, ratio
        self.breaker = CircuitBreaker(in_a_row, ratio)
        self.history: list[bool] = []
        self.open = False

    def _must_open(self) -> bool:
        recent = self.history[-RATIO_WINDOW:]
        in_a_row = all(self.history[-self.in_a_row :]) and len(self.history) >= self.in_a_row
        # Certain: the window may still fill up with successes.
        return in_a_row or sum(recent) > self.ratio * RATIO_WINDOW

    @rule(failed=st.booleans(), number=_RUNS)
    def note(self, *, failed: bool, number: int) -> None:
        for _ in range(0 if self.open else number):
            self.history.append(failed)
            if self._must_open():
                with pytest.raises(CircuitOpen):
                    self.breaker.note(failed=failed)
                self.open = True
                return
            self.breaker.note(failed=failed)


class Unreadable(RuleBasedStateMachine):
    """Readable, unreadable and empty records, polls and time."""

    @initialize(ratio=_RATIOS)
    def begin(self, ratio: float) -> None:
        self.ratio, self.guard = ratio, Readability(ratio)
        self.history: list[DeadLetterReason | None] = []
        self.held: list[float] = []  # when each held record came
        self.quiet: float | None = None
        self.now = 0.0
        self.stopped = False

    def _must_stop(self, reason: DeadLetterReason) -> bool:
        window = self.history[-WINDOW:]
        return len(window) >= LEAST and window.count(reason) > self.ratio * len(window)

    @rule()
    def restart(self) -> None:
        """A worker that stopped is started again, and knows nothing of before."""
        if self.stopped:
            self.begin(self.ratio)

    @precondition(lambda self: not self.stopped)
    @rule(number=_RUNS)
    def readable(self, number: int) -> None:
        self._polled(number)
        for offset in range(number):
            self.history.append(None)
            assert not self.guard.note(item(offset), self.now)
        self.held = []

    @precondition(lambda self: not self.stopped)
    @rule(
        number=_RUNS,
        reason=st.sampled_from((DeadLetterReason.NOT_UTF8, DeadLetterReason.NOT_JSON)),
    )
    def unreadable(self, number: int, reason: DeadLetterReason) -> None:
        self._polled(number)
        for offset in range(number):
            entry = InvalidRecord(invalid(offset).record, reason, "it can't be read")
            if self.ratio >= 1:
                assert not self.guard.note(entry, self.now), "the check is off"
                continue
            self.history.append(reason)
            if self._must_stop(reason):
                with pytest.raises(StreamUnreadable):
                    self.guard.note(entry, self.now)
                self.stopped = True
                return
            self.held.append(self.now)
            assert self.guard.note(entry, self.now)

    @precondition(lambda self: not self.stopped)
    @rule()
    def tombstone(self) -> None:
        """A record without a value tells nothing, and waits behind what is held."""
        self._polled(1)
        entry = InvalidRecord(raw(0, None), DeadLetterReason.NULL_VALUE, "no value")
        assert self.guard.note(entry, self.now) == bool(self.held)

    @precondition(lambda self: not self.stopped)
    @rule(seconds=st.sampled_from((0.1, 1.0, 1.9, 2.0, 5.0)))
    def wait(self, seconds: float) -> None:
        self.guard.polled(0, self.now)
        self.quiet = self.now if self.quiet is None else self.quiet
        self.now += seconds
        if self.held and (self.now - self.quiet >= 2 or self.now - self.held[0] >= 10):
            self.held = []
        assert self.guard.waited(self.now) == (not self.held)

    def _polled(self, number: int) -> None:
        self.quiet = None
        self.guard.polled(number, self.now)


TestBreaker = Breaker.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestUnreadable = Unreadable.TestCase
TestUnreadable.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
