"""Faults that wait for records in flight, so that they hit some on a fast machine too.

Each slows workers down, waits until one reports records in flight in shared memory, and breaks
them then. The harness's thread runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.chaos.agenda import Agenda
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, WorkerSlot
from tests.chaos.plan import Fault
from tests.chaos.protocol import Meddling
from worker.clock import SystemClock

_SLOW_BY: Final = 0.1  # seconds a text: less than the records arrive in
_MANY: Final = 32  # records: two micro-batches
_ANSWERED_S: Final = 1.5  # seconds until results are acknowledged
_COMMITTED_S: Final = 2.0  # in which a worker commits what it takes for done
_LOOK_S: Final = 0.1
_PATIENCE_S: Final = 20.0  # until a state counts as one that never comes


class BusyFaults:
    """Faults of workers with records in flight."""

    _agenda: Agenda
    _cluster: Cluster
    _cut: set[int]
    _heal_wire: Callable[[Any, int], None]
    _clock: SystemClock
    _fleet: Fleet
    _target: Callable[[Fault], WorkerSlot | None]
    _free_slot: Callable[[Fault], WorkerSlot | None]

    def _busy_join(self, fault: Fault) -> bool:
        """Let a worker join while the others await acknowledgements, until one gives some up."""
        wires, slow = self._cluster.wires, self._awaiting()
        if wires is None or not slow or (free := self._free_slot(fault)) is None:
            return False
        for slot in slow:
            self._cut.add(slot.number)
            wires.meddle(slot.number, Meddling("delay", "Produce", seconds=_ANSWERED_S))

        def heal() -> None:
            for slot in slow:
                self._heal_wire(wires, slot.number)

        def join() -> None:
            if not free.running:
                self._fleet.start(free)
            before = _revocations(slow)
            self._when(lambda: _revocations(slow) > before, heal)

        self._when(lambda: any(slot.orders.uncommitted >= _MANY for slot in slow), join)
        return True

    def _awaiting(self) -> list[WorkerSlot]:
        return [
            slot
            for slot in self._fleet.running
            if not (slot.frozen or slot.stopping or slot.number in self._cut)
        ]

    def _busy_kill(self, fault: Fault) -> bool:
        """Kill a slow worker with texts in flight that it had time to commit too early."""
        if (slot := self._target(fault)) is None:
            return False
        slot.orders.slow_by = _SLOW_BY
        slot.orders.slow_until = self._clock.monotonic() + 2 * _PATIENCE_S

        def kill() -> None:
            slot.orders.slow_by = slot.orders.slow_until = 0.0
            if slot.running:
                self._fleet.kill(slot, fault.duration)

        self._when(
            lambda: not slot.running or bool(slot.orders.in_flight >= _MANY),
            lambda: self._agenda.after(_COMMITTED_S, kill),
        )
        return True

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


def _revocations(slots: Sequence[WorkerSlot]) -> int:
    return sum(slot.orders.busy_revocations for slot in slots if slot.running)
