"""A stage: one named thread between two bounded hand-offs.

inbox -> work -> hand on. A stage that raises tells the worker, with its name, and ends; no
thread dies quietly. Imports nothing but the ground floor.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sized
from typing import Generic, TypeVar

from worker.clock import Clock

In = TypeVar("In", bound=Sized)
Out = TypeVar("Out")

_POLL_SECONDS = 0.1
_IDLE_SECONDS = 0.02


class Abandoned(BaseException):
    """The worker has given up, and the stage ends in the middle of an item. Nobody's fault."""


class Stage(Generic[In, Out]):
    """Runs `work` on each item of its inbox, in order, on a thread of its own.

    Args:
        name: of the thread, and in metrics and logs.
        work: does the stage's job and returns its result.
        inbox_size: items that may wait. One is enough to keep the stage busy.
        on_crash: told once, on this thread, when `work` raises.
        abandon: set when the worker gives up; a blocked `put` then returns, and the inbox is
            left as it is. What is lost there was never committed.
        clock: tells when the stage took a step.
        hand_on: takes the result, and may wait for room: the next stage's `put`.
        idle: done now and then while the inbox is empty.
        between: done before each item, and now and then while there is none; counts as no work.
        busy: told the seconds that were worked, as they pass; waits at either hand-off are none.

    Attributes:
        moved_at: when it last took an item, began a part of it, or was done with it.
    """

    def __init__(  # noqa: PLR0913 - a stage is little else than what it is connected with
        self,
        name: str,
        work: Callable[[In], Out],
        inbox_size: int,
        on_crash: Callable[[str, BaseException], None],
        abandon: threading.Event,
        clock: Clock,
        *,
        hand_on: Callable[[Out], None] = lambda _: None,
        idle: Callable[[], None] | None = None,
        between: Callable[[], None] = lambda: None,
        busy: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._work, self._hand_on, self._idle, self._busy = work, hand_on, idle, busy
        self._between = between
        self._inbox: queue.Queue[In] = queue.Queue(inbox_size)
        self._on_crash = on_crash
        self._abandon, self._clock = abandon, clock
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # Each counter has one writer: the thread that hands over, and the stage's own.
        self._came = self._went = 0
        self.moved_at = clock.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, item: In) -> bool:
        """Hand over without waiting; False while the inbox is full."""
        try:
            self._inbox.put_nowait(item)
        except queue.Full:
            return False
        self._came += len(item)
        return True

    def put(self, item: In) -> None:
        """Hand over, waiting for room: this is the backpressure between stages."""
        while not self._abandon.is_set():
            try:
                self._inbox.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            self._came += len(item)
            return

    @property
    def has_room(self) -> bool:
        """Whether `offer` would succeed; only the sole caller of `offer` may rely on it."""
        return not self._inbox.full()

    @property
    def held(self) -> int:
        """Records in the inbox and at work."""
        return self._came - self._went

    def describe(self) -> str:
        """What is held, for a sentence that ends in "for 12 s"."""
        return f"the {self.name} stage has held {self.held} records without a step"

    def threads(self) -> Iterable[int | None]:
        """The stage's own."""
        return (self._thread.ident,)

    def step(self) -> None:
        """On the stage's thread, between two parts of an item: it moves.

        Raises:
            Abandoned: the worker has given up; what is left of the item comes again.
        """
        if self._abandon.is_set():
            raise Abandoned
        self._worked()

    def _worked(self) -> None:
        before, self.moved_at = self.moved_at, self._clock.monotonic()
        self._busy(self.moved_at - before)

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the thread to end, which it does when abandoned."""
        if self._thread.is_alive():  # it may never have been started
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._abandon.is_set():
                # Nothing is held here: an item that comes meanwhile has waited for no longer.
                self.moved_at = self._clock.monotonic()
                self._between()
                try:
                    item = self._inbox.get(timeout=_IDLE_SECONDS if self._idle else _POLL_SECONDS)
                except queue.Empty:
                    if self._idle:
                        self._idle()
                    continue
                self.moved_at = self._clock.monotonic()  # the wait for it was no work
                self.step()
                result = self._work(item)
                self._worked()
                self._hand_on(result)
                self._went += len(item)
                self.moved_at = self._clock.monotonic()
        except Abandoned:
            return
        except BaseException as error:  # noqa: BLE001 - reported, and the worker stops on it
            self._on_crash(self.name, error)
