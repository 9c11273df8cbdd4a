"""A pool's slot as a state machine: always one process, until it has failed too often in a row."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.clocks import HandClock
from worker.errors import Fatal, SettingsError
from worker.pool.reports import ChildReport
from worker.pool.slot import MAX_FAILURES, STABLE_AFTER, WRONG_SETTINGS, Slot
from worker.settings import load

_SETTINGS = load({}, environ={}).settings
_LONGEST_PAUSE = 10.0  # seconds between the end of a process and the start of the next
_SILENCE = 120.0


class _Process:
    pid, reason = 1, "no reason"

    def __init__(self, now: float) -> None:
        self.code: int | None = None
        self.report: ChildReport | None = None
        self.reported_at = now

    def poll(self) -> int | None:
        return self.code


class Supervision(RuleBasedStateMachine):
    """Processes start, become ready, fall silent and end."""

    @initialize()
    def begin(self) -> None:
        self.clock = HandClock()
        self.started: list[_Process] = []
        self.ends = self.restarts = 0
        self.failures = 0  # in a row
        self.ready_since: float | None = None
        self.ended_at = self.clock.now
        self.over = False
        self.slot = Slot(
            0,
            _SETTINGS,
            start=self._start,
            on_end=self._end,
            on_restart=self._restart,
            silence=_SILENCE,
            clock=self.clock,
        )

    def _start(self, _: object) -> Any:
        self.started.append(_Process(self.clock.now))
        self.ready_since = None
        return self.started[-1]

    def _end(self) -> None:
        self.ends += 1

    def _restart(self) -> None:
        self.restarts += 1

    @property
    def child(self) -> _Process | None:
        child: Any = self.slot.child
        return child

    @rule()
    def step(self) -> None:
        if self.over:
            return
        ending = self.child is not None and self.child.code is not None
        if self.child and self.ready_since is None and self._ready():
            self.ready_since = self.clock.now
        if not ending:
            self.slot.step()
            return
        stable = self.ready_since is not None and (
            self.clock.now - self.ready_since >= STABLE_AFTER
        )
        self.failures = 1 if stable else self.failures + 1
        self.ended_at = self.clock.now
        wrong = self.child is not None and self.child.code == WRONG_SETTINGS
        if wrong or self.failures >= MAX_FAILURES:
            self.over = True
            with pytest.raises(SettingsError if wrong else Fatal):
                self.slot.step()
        else:
            self.slot.step()

    def _ready(self) -> bool:
        child = self.child
        silent = child is None or self.clock.now - child.reported_at > _SILENCE
        return not silent and child is not None and bool(child.report and child.report.ready[0])

    @rule(ready=st.booleans())
    def report(self, *, ready: bool) -> None:
        if self.child and self.child.code is None:
            self.child.report = ChildReport((True, "running"), (ready, "running"))
            self.child.reported_at = self.clock.now

    @rule(code=st.sampled_from((0, 1, 1, 1, -9, WRONG_SETTINGS)))
    def end(self, code: int) -> None:
        if self.child:
            self.child.code = code

    @rule(seconds=st.sampled_from((0.1, 1.0, _LONGEST_PAUSE, STABLE_AFTER, _SILENCE + 1)))
    def wait(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    @invariant()
    def it_has_one_process_or_starts_one_soon(self) -> None:
        if not hasattr(self, "slot") or self.over:
            return
        assert self.ends == len(self.started) - (self.child is not None)
        assert self.restarts == max(0, len(self.started) - 1)
        if self.child is None and self.clock.now - self.ended_at > _LONGEST_PAUSE:
            self.slot.step()
            assert self.child, "it has waited long enough"

    @invariant()
    def health_follows_the_process(self) -> None:
        if not hasattr(self, "slot") or self.over:
            return
        assert self.slot.ready()[0] == self._ready()
        silent = self.child is not None and self.clock.now - self.child.reported_at > _SILENCE
        assert self.slot.live()[0] == (not silent)


TestSupervision = Supervision.TestCase
TestSupervision.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
