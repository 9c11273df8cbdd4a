"""Starts, breaks and restarts the workers under test.

Owns the processes, their exit codes, and the number of records between poll and commit at each end.
Runs on the harness's thread. A fork server that has loaded torch starts a process in a fraction of
a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.worker import Orders, main
from worker.clock import SystemClock

_PRELOAD = [
    "tests.chaos.worker",
    "tests.support.models",
    "worker.inference.bundled",
    "worker.runtime.launch",
]

MakeFlags = Callable[[int], Mapping[str, Any]]


class WorkerSlot:
    """Keeps the settings and the proxy of a worker while its processes come and go.

    Attributes:
        config: settings file of its processes.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Any = None
        self.orders: Any = None
        self.due: float | None = None  # when to start a process; None: not at all
        self.frozen = False
        self.stopping = False
        self.config: Path | None = None
        self.skew = 0.0  # seconds that the clock of the next process is off

    @property
    def running(self) -> bool:
        """True while there is a process, frozen or not."""
        return self.process is not None


class Fleet:
    """Starts, breaks and restarts workers.

    Args:
        slots: most workers at a time.
        flags: returns the settings of a slot, by path.
        folder: takes a log for each slot.
        bug: planted into each worker.

    Attributes:
        exits: counts by exit code; signals are negative.
        repeatable: records that were polled and not committed at each hard end, which at-least-once
            may duplicate.
        replaced: producers that workers replaced because they had stopped sending.
    """

    def __init__(self, slots: int, flags: MakeFlags, folder: Path, bug: str | None) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        self._flags, self._folder, self._bug = flags, folder, bug
        self._clock = SystemClock()
        self.slots = [WorkerSlot(number) for number in range(slots)]
        self.exits: Counter[str] = Counter()
        self.repeatable = 0
        self.replaced = 0

    @property
    def running(self) -> list[WorkerSlot]:
        """Return the slots with a process."""
        return [slot for slot in self.slots if slot.running]

    def start(self, slot: WorkerSlot, more: Mapping[str, Any] | None = None) -> None:
        """Start a process in an empty slot, with these settings besides those of the slot."""
        slot.orders = self._context.RawValue(Orders)
        slot.orders.clock_skew, slot.skew = slot.skew, 0.0
        slot.due, slot.stopping, slot.frozen = None, False, False
        log = self._folder / f"worker-{slot.number}.log"
        flags = dict(self._flags(slot.number)) | dict(more or {})
        arguments = (flags, slot.config, slot.orders, log, self._bug, os.getpid())
        slot.process = self._context.Process(target=main, args=arguments, daemon=True)
        slot.process.start()

    def start_twin(self, slot: WorkerSlot, of: WorkerSlot) -> None:
        """Start a process with the identity of another slot's member; it does not come back."""
        name = "kafka.group_instance_id"
        self.start(slot, {name: self._flags(of.number)[name]})
        slot.stopping = True

    def terminate(self, slot: WorkerSlot, back_after: float | None) -> None:
        """Stop as planned; start another process `back_after` seconds later (None: never)."""
        self.thaw(slot)
        slot.stopping, slot.due = True, back_after
        self._signal(slot, signal.SIGTERM)

    def kill(self, slot: WorkerSlot, back_after: float) -> None:
        """Send SIGKILL, after SIGSTOP, so that the records in flight can be counted."""
        self._signal(slot, signal.SIGSTOP)
        slot.due = back_after
        self._signal(slot, signal.SIGKILL)

    def freeze(self, slot: WorkerSlot) -> None:
        """Send SIGSTOP. Another worker may process the records in flight meanwhile."""
        self._signal(slot, signal.SIGSTOP)
        slot.frozen = True

    def thaw(self, slot: WorkerSlot) -> None:
        """Send SIGCONT."""
        if slot.frozen:
            slot.frozen = False
            self._signal(slot, signal.SIGCONT)

    def supervise(self) -> None:
        """Note processes that ended and start those that are due. Call a few times a second."""
        now = self._clock.monotonic()
        for slot in self.slots:
            if slot.process is not None and slot.process.exitcode is not None:
                self._ended(slot, now)
            elif slot.process is None and slot.due is not None and now >= slot.due:
                self.start(slot)

    def _ended(self, slot: WorkerSlot, now: float) -> None:
        code = slot.process.exitcode
        self.exits[str(code)] += 1
        orders = slot.orders
        self.replaced += orders.replaced
        self.repeatable += orders.lost + (orders.left + orders.uncommitted if code else 0)
        slot.process.join()
        slot.process.close()
        slot.process = None
        if slot.due is not None or not slot.stopping:
            slot.due = now + (slot.due or 0.0)

    def stop_all(self, timeout: float) -> bool:
        """Stop all as planned; return False if one had to be killed."""
        for slot in self.slots:
            slot.due = None
            if slot.running:
                self.terminate(slot, None)
        deadline = self._clock.monotonic() + timeout
        while self.running and self._clock.monotonic() < deadline:
            self.supervise()
            self._clock.sleep(0.1)
        late = self.running
        for slot in late:
            slot.stopping = True
            self._signal(slot, signal.SIGKILL)
            slot.process.join()
            self._ended(slot, self._clock.monotonic())
        return not late

    def _signal(self, slot: WorkerSlot, number: signal.Signals) -> None:
        if slot.process is not None and slot.process.exitcode is None:
            os.kill(slot.process.pid, number)
