"""The group's rebalances, handed to the runtime without blocking the client.

The client's IO thread runs the coroutines, the revoke thread what may take long; the class's
comment walks through why neither races with the poll thread. Imports no inference and no runtime.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.future import Future

from worker.clock import Clock
from worker.core.records import Partition

Where = Literal["earliest", "latest"]


class RebalanceHandler(Protocol):
    """What the runtime does when partitions come and go."""

    def on_assigned(self, partitions: Mapping[Partition, int]) -> None:
        """Start to track these partitions under their epochs. Must not block."""
        ...

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        """Drain and commit these partitions; may block, within a bound."""
        ...

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        """Drop these partitions; it is too late to commit. Must not block."""
        ...

    def on_begun(self, positions: Mapping[Partition, int], where: Where) -> Mapping[Partition, int]:
        """The group has committed nothing of these partitions, and may begin here.

        Args:
            positions: to be committed before anything is read of these partitions.
            where: that is, in words.

        Returns:
            Where the group begins, for each partition where that is committed; of the others it is
            told again.
        """
        ...

    def on_skipped(self, partition: Partition, offsets: range) -> None:
        """The log has not had these offsets any more when they were to be read."""
        ...


class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Hands rebalances to the runtime without blocking the client's IO thread.

    The race that is not there, walked through: the client runs these coroutines on its IO
    thread, but starts them only from inside `poll()` or `close()`, and these do not return
    before the coroutine ends. So while one runs, the poll thread is parked and touches nothing.
    `on_partitions_revoked` may take seconds (it drains): it gives the poll thread's duties to the
    revoke thread and awaits it, and meanwhile the IO thread goes on sending heartbeats. When the
    await ends, the revoke thread has stopped touching anything, and the poll thread wakes up.

    Args:
        handler: the runtime's side.
        wake: wakes up the client's loop.
        clock: waits.
        pause: seconds until the client may join again after partitions were given back.
    """

    def __init__(
        self, handler: RebalanceHandler, wake: Callable[[], None], clock: Clock, pause: float
    ) -> None:
        self._handler = handler
        self._wake = wake
        self._clock, self._pause = clock, pause
        self._revoker = ThreadPoolExecutor(1, thread_name_prefix="revoke")
        self._epoch = itertools.count(1)
        self.epochs: dict[Partition, int] = {}

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        fresh = {Partition(*tp): next(self._epoch) for tp in assigned}
        self.epochs = self.epochs | fresh  # replaced whole: other threads read it
        self._handler.on_assigned(fresh)

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        gone = [Partition(*tp) for tp in revoked]
        drained = Future()
        self._revoker.submit(self._drain, gone, drained)
        await drained

    def _drain(self, gone: list[Partition], drained: Any) -> None:
        try:
            try:
                self._handler.on_revoked(gone)
            finally:
                self._forget(gone)  # another worker gets them, also after a failed drain
            self._clock.sleep(self._pause)
            drained.success(None)
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            drained.failure(error)
        self._wake()

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        gone = [Partition(*tp) for tp in lost]
        self._forget(gone)
        self._handler.on_lost(gone)

    def _forget(self, gone: Iterable[Partition]) -> None:
        left = set(gone)
        self.epochs = {p: epoch for p, epoch in self.epochs.items() if p not in left}

    def begin_anew(self, partition: Partition) -> None:
        """Poll thread: a new epoch; what is in flight of the old one does not count."""
        fresh = {partition: next(self._epoch)}
        self.epochs = self.epochs | fresh
        self._handler.on_assigned(fresh)

    def lose_all(self) -> None:
        """Poll thread: nothing that is in flight counts any more."""
        gone, self.epochs = list(self.epochs), {}
        if gone:
            self._handler.on_lost(gone)

    def close(self) -> None:
        self._revoker.shutdown(wait=False)
