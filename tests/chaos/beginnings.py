"""Begins the faults of a plan at their times, and gives up those that never find a target.

Owns: the numbers of faults that began, and of those that were skipped.
Thread: the harness's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from tests.chaos.agenda import RETRY_S, Agenda
from tests.chaos.plan import Fault
from worker.clock import Clock

# Seconds in which no fault begins, until one that is due is skipped. Longer than any fault lasts,
# since it may wait for the end of another one.
GIVE_UP_S: Final = 120.0


class Beginnings:
    """Begins faults; one without a target, or that the cluster refuses, is tried again.

    Args:
        begin: begins a fault; returns False if that is not possible now.
        refusal: returns the cluster's last refusal, for the log; may be empty.
        agenda: has the times.
        clock: that of the agenda.
        log: takes a line for each fault.

    Attributes:
        done, skipped: number of faults that began and that were given up, by kind.
    """

    def __init__(
        self,
        begin: Callable[[Fault], bool],
        refusal: Callable[[], str],
        agenda: Agenda,
        clock: Clock,
        log: Callable[[str], None],
    ) -> None:
        self._begin, self._refusal = begin, refusal
        self._agenda, self._clock, self._log = agenda, clock, log
        self.done: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._last = self._clock.monotonic()  # when a fault began
        self._number = 0

    def put_on_agenda(self, faults: Sequence[Fault]) -> None:
        """Begin each fault at its time, counted from now."""
        now, self._number = self._clock.monotonic(), len(faults)
        for fault in faults:
            self._agenda.at(now + fault.at, partial(self._try, fault, now + fault.at))

    def _try(self, fault: Fault, due: float) -> None:
        if self._begin(fault):
            self.done[fault.kind] += 1
            self._last = self._clock.monotonic()
            self._log(f"{self.done.total()}/{self._number} {fault.kind}")
        elif self._clock.monotonic() < max(due, self._last) + GIVE_UP_S:
            self._agenda.after(RETRY_S, partial(self._try, fault, due))
        else:
            self.skipped[fault.kind] += 1
            why = self._refusal() or "it found no target"
            self._log(f"skipped {fault.kind}: no fault began for {GIVE_UP_S:g} s ({why})")
