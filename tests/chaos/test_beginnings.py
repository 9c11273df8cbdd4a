"""A fault that can't begin is skipped in time, and an end that never succeeds fails the run."""

from __future__ import annotations

import pytest

from tests.chaos.agenda import END_S, Agenda, EndFailed
from tests.chaos.beginnings import GIVE_UP_S, Beginnings
from tests.chaos.plan import Fault
from tests.support.clocks import HandClock


class Bench:
    """Faults of two kinds: `refused` never begins, `long` begins each 100 seconds."""

    def __init__(self) -> None:
        self.clock, self.log, self.refusal = HandClock(), list[str](), "not enough brokers"
        self.agenda = Agenda(self.clock)
        self.beginnings = Beginnings(
            self._begin, lambda: self.refusal, self.agenda, self.clock, self.log.append
        )
        self.started = self.free_at = self.clock.now

    def _begin(self, fault: Fault) -> bool:
        if fault.kind == "refused" or self.clock.now < self.free_at:
            return False
        self.free_at = self.clock.now + 100
        return True

    def run(self, *kinds: str) -> float:
        """Return the seconds until nothing is left to do."""
        self.beginnings.put_on_agenda([Fault(1.0, kind, 0, 0.0, 0.0) for kind in kinds])
        while not self.agenda.empty:
            self.clock.sleep(1)
            self.agenda.run_due()
        return self.clock.now - self.started


def test_a_fault_that_is_always_refused_is_skipped() -> None:
    bench = Bench()
    assert bench.run("refused") == GIVE_UP_S + 1
    assert (bench.beginnings.done, bench.beginnings.skipped) == ({}, {"refused": 1})
    assert bench.log == ["skipped refused: no fault began for 120 s (not enough brokers)"]


def test_a_fault_that_waits_for_others_is_not_skipped() -> None:
    """The last one begins after 301 seconds."""
    bench = Bench()
    bench.refusal = ""
    assert bench.run("long", "refused", "long", "long", "long") == 301 + GIVE_UP_S
    assert (bench.beginnings.done, bench.beginnings.skipped) == ({"long": 4}, {"refused": 1})
    assert bench.log[-1].endswith("(it found no target)")


@pytest.mark.parametrize("fails", [0, 1, int(END_S)])
def test_the_end_of_a_fault_is_tried_until_it_succeeds(fails: int) -> None:
    clock, done = HandClock(), list[float]()
    agenda, began = Agenda(clock), clock.now
    agenda.until_done("x", lambda: clock.now - began >= fails, lambda: done.append(clock.now))
    while not agenda.empty:
        clock.sleep(1)
        agenda.run_due()
    assert done == [began + fails]


def test_an_end_that_never_succeeds_is_named() -> None:
    clock = HandClock()
    agenda = Agenda(clock)
    agenda.until_done("the broker back", lambda: False)

    def all_of_it() -> None:
        while not agenda.empty:
            clock.sleep(1)
            agenda.run_due()

    with pytest.raises(EndFailed, match="the broker back: not done in 300 s"):
        all_of_it()
