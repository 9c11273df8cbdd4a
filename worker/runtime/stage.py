"""Runs one stage of the pipeline: a named thread between two bounded hand-offs.

Owns: `Stage` and its thread: inbox -> work -> hand on.
Thread: the stage's own; `offer` and `put` are called by the thread before it.
Must not import: anything above the ground floor.

A stage that raises reports its name and the error to the worker, and ends. No thread dies silently.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.clock import Clock
from worker.runtime.stall import StageProgress

In = TypeVar("In", bound=Sized)
Out = TypeVar("Out")

_POLL_SECONDS = 0.1
_IDLE_SECONDS = 0.02


class StageCancelled(BaseException):
    """The worker gave up, and the stage ends in the middle of an item. Not an error."""


@dataclass(frozen=True, slots=True)
class StageControl:
    """The parts that all stages of one pipeline share.

    Attributes:
        on_crash: called once, on the stage's thread, with the stage's name and its error.
        clock: times the steps.
        cancelled: set when the worker gives up. A blocked `put` then returns, and items left in an
            inbox stay there: their offsets were never committed.
    """

    on_crash: Callable[[str, BaseException], None]
    clock: Clock
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class StageHooks(Generic[Out]):
    """Calls that a stage makes on its own thread beside its work.

    Attributes:
        hand_on: takes each result, and may wait for room: the next stage's `put`.
        idle: called repeatedly while the inbox is empty.
        between: called before each item, and repeatedly while there is none. Its time does not
            count as work.
        busy: called with the seconds that were worked, as they pass. Waits at either hand-off are
            left out.
    """

    hand_on: Callable[[Out], None] = lambda _: None
    idle: Callable[[], None] | None = None
    between: Callable[[], None] = lambda: None
    busy: Callable[[float], None] = lambda _: None


class Stage(Generic[In, Out]):
    """Runs `work` on each item of its inbox, in order, on a thread of its own.

    Args:
        work: does the stage's job and returns its result.
        progress: names the stage, and counts its records for health.
        control: shared by all stages of the pipeline.
        hooks: called beside the work.
        inbox_size: items that may wait. One is enough to keep the stage busy.
    """

    def __init__(
        self,
        work: Callable[[In], Out],
        progress: StageProgress,
        control: StageControl,
        hooks: StageHooks[Out] | None = None,
        *,
        inbox_size: int = 1,
    ) -> None:
        self._work, self._progress, self._control = work, progress, control
        self._hooks: StageHooks[Out] = hooks or StageHooks()
        self._inbox: queue.Queue[In] = queue.Queue(inbox_size)
        self._thread = threading.Thread(target=self._run, name=progress.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, item: In) -> bool:
        """Hand over without waiting; return False while the inbox is full."""
        try:
            self._inbox.put_nowait(item)
        except queue.Full:
            return False
        self._progress.entered(len(item))
        return True

    def put(self, item: In) -> None:
        """Hand over, waiting for room: this is the backpressure between stages."""
        while not self._control.cancelled.is_set():
            try:
                self._inbox.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            self._progress.entered(len(item))
            return

    @property
    def has_room(self) -> bool:
        """True if `offer` would succeed; valid only for the sole caller of `offer`."""
        return not self._inbox.full()

    def step(self) -> None:
        """Note progress between two parts of an item. Called on the stage's thread.

        Raises:
            StageCancelled: the worker gave up; the rest of the item will be polled again.
        """
        if self._control.cancelled.is_set():
            raise StageCancelled
        self._count_work()

    def _moved(self) -> None:
        self._progress.moved_at = self._control.clock.monotonic()

    def _count_work(self) -> None:
        before = self._progress.moved_at
        self._moved()
        self._hooks.busy(self._progress.moved_at - before)

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the thread to end, as it does when cancelled."""
        if self._thread.is_alive():  # it may never have been started
            self._thread.join(timeout)

    def _run(self) -> None:
        self._progress.thread = threading.get_ident()
        try:
            while not self._control.cancelled.is_set():
                # The stage holds no item here, so one that arrives now has waited no longer.
                self._moved()
                self._hooks.between()
                self._run_next()
        except StageCancelled:
            return
        except BaseException as error:  # noqa: BLE001 - reported, and the worker stops on it
            self._control.on_crash(self._progress.name, error)

    def _run_next(self) -> None:
        try:
            item = self._inbox.get(timeout=_IDLE_SECONDS if self._hooks.idle else _POLL_SECONDS)
        except queue.Empty:
            if self._hooks.idle:
                self._hooks.idle()
            return
        self._moved()  # waiting for the item does not count as work
        self.step()
        result = self._work(item)
        self._count_work()
        self._hooks.hand_on(result)
        self._progress.left(len(item))
        self._moved()
