"""Faults that wait for records in flight, so that they hit some on a fast machine too.

Each makes workers slow, waits until one reports texts in flight in shared memory, and breaks it
then. The harness's thread runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.chaos.agenda import Agenda
from tests.chaos.fleet import Fleet, WorkerSlot
from tests.chaos.plan import Fault
from worker.clock import SystemClock

_SLOW_BY: Final = 0.1  # seconds a text: less than the records arrive in
_MANY: Final = 32  # texts: two micro-batches
_COMMITTED_S: Final = 2.0  # in which a worker commits what it takes for done
_LOOK_S: Final = 0.1
_PATIENCE_S: Final = 20.0  # until a state counts as one that never comes


class BusyFaults:
    """Faults of workers with records in flight."""

    _agenda: Agenda
    _clock: SystemClock
    _fleet: Fleet
    _target: Callable[[Fault], WorkerSlot | None]
    _free_slot: Callable[[Fault], WorkerSlot | None]

    def _busy_join(self, fault: Fault) -> bool:
        """A worker joins while all others are slow, until one has given up partitions."""
        slow = [slot for slot in self._fleet.running if not slot.frozen and not slot.stopping]
        if not slow or (free := self._free_slot(fault)) is None:
            return False
        self._slow_down(slow)

        def join() -> None:
            if not free.running:
                self._fleet.start(free)
            before = {slot.number: slot.orders.busy_revocations for slot in slow}
            self._when(
                lambda: any(slot.orders.busy_revocations > before[slot.number] for slot in slow),
                lambda: self._speed_up(slow),
            )

        self._when(lambda: any(slot.orders.in_flight >= _MANY for slot in slow), join)
        return True

    def _busy_kill(self, fault: Fault) -> bool:
        """A slow worker is killed with texts in flight that it had time to commit too early."""
        if (slot := self._target(fault)) is None:
            return False
        self._slow_down([slot])

        def kill() -> None:
            self._speed_up([slot])
            if slot.running:
                self._fleet.kill(slot, fault.duration)

        self._when(
            lambda: not slot.running or bool(slot.orders.in_flight >= _MANY),
            lambda: self._agenda.after(_COMMITTED_S, kill),
        )
        return True

    def _slow_down(self, slots: list[WorkerSlot]) -> None:
        for slot in slots:
            slot.orders.slow_by = _SLOW_BY
            slot.orders.slow_until = self._clock.monotonic() + 2 * _PATIENCE_S

    def _speed_up(self, slots: list[WorkerSlot]) -> None:
        for slot in slots:
            slot.orders.slow_by = slot.orders.slow_until = 0.0

    def _when(
        self, holds: Callable[[], bool], act: Callable[[], None], deadline: float | None = None
    ) -> None:
        """Act once a state is reached, or after some time without it."""
        if deadline is None:
            deadline = self._clock.monotonic() + _PATIENCE_S
        if holds() or self._clock.monotonic() >= deadline:
            act()
            return
        self._agenda.after(_LOOK_S, lambda: self._when(holds, act, deadline))
