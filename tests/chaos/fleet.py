"""The workers under test: a few slots, each with a process or empty; their supervisor.

Owns the processes, and what is known of each death: the exit code, and how many records were
between poll and commit. Runs on the harness's thread. Processes come out of a fork server that has
torch loaded already, so that a new one is there in a fraction of a second.
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


class Slot:
    """A worker's place: its settings and its wire stay, its processes come and go."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Any = None
        self.orders: Any = None
        self.due: float | None = None  # when a process is to be started; None: stays empty
        self.frozen = False
        self.told = False  # to stop

    @property
    def running(self) -> bool:
        """Whether a process is there, frozen or not."""
        return self.process is not None


class Fleet:
    """Starts, breaks and restarts workers.

    Args:
        slots: how many there can be.
        flags: a slot's settings by path.
        folder: gets a log for each slot.
        bug: planted into each worker.

    Attributes:
        exits: exit code -> how often; a signal is negative.
        repeatable: records that were polled and not committed at each hard end, so that they may
            come twice with at-least-once.
        replaced: producers that workers gave up because they had stopped sending.
    """

    def __init__(self, slots: int, flags: MakeFlags, folder: Path, bug: str | None) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        self._flags, self._folder, self._bug = flags, folder, bug
        self._clock = SystemClock()
        self.slots = [Slot(number) for number in range(slots)]
        self.exits: Counter[str] = Counter()
        self.repeatable = 0
        self.replaced = 0

    @property
    def running(self) -> list[Slot]:
        """Slots with a process."""
        return [slot for slot in self.slots if slot.running]

    def start(self, slot: Slot) -> None:
        """Start a process in an empty slot."""
        slot.orders = self._context.RawValue(Orders)
        slot.due, slot.told, slot.frozen = None, False, False
        log = self._folder / f"worker-{slot.number}.log"
        flags = dict(self._flags(slot.number))
        arguments = (flags, slot.orders, log, self._bug, os.getpid())
        slot.process = self._context.Process(target=main, args=arguments, daemon=True)
        slot.process.start()

    def terminate(self, slot: Slot, back_after: float | None) -> None:
        """A planned stop; another process follows `back_after` seconds later (None: never)."""
        self.thaw(slot)
        slot.told, slot.due = True, back_after
        self._signal(slot, signal.SIGTERM)

    def kill(self, slot: Slot, back_after: float) -> None:
        """SIGKILL. It is stopped first, so that what is in flight can be counted."""
        self._signal(slot, signal.SIGSTOP)
        slot.due = back_after
        self._signal(slot, signal.SIGKILL)

    def freeze(self, slot: Slot) -> None:
        """SIGSTOP; what it has in flight may be done by another meanwhile."""
        self._signal(slot, signal.SIGSTOP)
        slot.frozen = True

    def thaw(self, slot: Slot) -> None:
        """SIGCONT."""
        if slot.frozen:
            slot.frozen = False
            self._signal(slot, signal.SIGCONT)

    def supervise(self) -> None:
        """Note who has ended, start who is due; to be called a few times a second."""
        now = self._clock.monotonic()
        for slot in self.slots:
            if slot.process is not None and slot.process.exitcode is not None:
                self._ended(slot, now)
            elif slot.process is None and slot.due is not None and now >= slot.due:
                self.start(slot)

    def _ended(self, slot: Slot, now: float) -> None:
        code = slot.process.exitcode
        self.exits[str(code)] += 1
        orders = slot.orders
        self.replaced += orders.replaced
        self.repeatable += orders.lost + (orders.left + orders.uncommitted if code else 0)
        slot.process.join()
        slot.process.close()
        slot.process = None
        if slot.due is not None or not slot.told:
            slot.due = now + (slot.due or 0.0)

    def stop_all(self, timeout: float) -> bool:
        """A planned stop of all; False where one had to be killed."""
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
            slot.told = True
            self._signal(slot, signal.SIGKILL)
            slot.process.join()
            self._ended(slot, self._clock.monotonic())
        return not late

    def _signal(self, slot: Slot, number: signal.Signals) -> None:
        if slot.process is not None and slot.process.exitcode is None:
            os.kill(slot.process.pid, number)
