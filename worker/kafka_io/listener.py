"""Passes the group's rebalances to the runtime without blocking the client.

Owns: the assignment's epochs; the revoke thread.
Thread: the client's IO thread runs the coroutines, the revoke thread runs what may take long.
`Listener` explains why neither races with the poll thread.
Must not import: inference, runtime.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

from kafka import AsyncConsumerRebalanceListener

from worker.clock import Clock
from worker.core.records import Partition
from worker.kafka_io.internals import Future

StartFrom = Literal["earliest", "latest", "range"]


class RebalanceHandler(Protocol):
    """The runtime's part in a rebalance."""

    def on_assigned(self, partitions: Mapping[Partition, int]) -> None:
        """Start to track these partitions under their epochs. Must not block."""
        ...

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        """Drain and commit these partitions; may block, within a bound."""
        ...

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        """Drop these partitions; it is too late to commit. Must not block."""
        ...

    def on_deleted(self, partitions: Iterable[Partition]) -> None:
        """Drop these partitions: their topic was deleted. Must not block."""
        ...

    def on_begun(
        self, positions: Mapping[Partition, int], where: StartFrom
    ) -> Mapping[Partition, int]:
        """Commit the first positions of partitions for which the group has none.

        Args:
            positions: to be committed before anything is read of these partitions.
            where: the end of the log that the positions are at, or the start of a range.

        Returns:
            The positions that are committed; the handler is called again for the others.
        """
        ...

    def on_skipped(self, partition: Partition, offsets: range) -> None:
        """Note that these offsets were deleted before they could be read."""
        ...


class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Passes rebalances to the runtime without blocking the client's IO thread.

    There is no race. Walked through: the client runs these coroutines on its IO thread, but starts
    them only from inside `poll()` or `close()`, which do not return before the coroutine ends. So
    while one runs, the poll thread is parked and touches nothing. `on_partitions_revoked` may take
    seconds (it drains): it hands the poll thread's duties to the revoke thread and awaits it, while
    the IO thread continues to send heartbeats. When the await ends, the revoke thread no longer
    touches anything, and the poll thread resumes.

    Args:
        handler: the runtime's side.
        wake: wakes the client's IO loop.
        clock: sleeps for `pause`.
        pause: seconds between a revocation and the client's next join.

    Attributes:
        epochs: the epoch of each assigned partition; replaced whole, so any thread may read it.
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
        epochs = {Partition(*tp): next(self._epoch) for tp in assigned}
        self.epochs = self.epochs | epochs
        self._handler.on_assigned(epochs)

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        partitions = self._held(revoked)
        if not partitions:
            return
        drained = Future()
        self._revoker.submit(self._drain, partitions, drained)
        await drained

    def _drain(self, partitions: list[Partition], drained: Any) -> None:
        try:
            try:
                self._handler.on_revoked(partitions)
            finally:
                self._forget(partitions)  # another worker gets them even if the drain failed
            self._clock.sleep(self._pause)
            drained.success(None)
        except Exception as error:  # noqa: BLE001 - `await drained` raises it
            drained.failure(error)
        self._wake()

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        partitions = self._held(lost)
        self._forget(partitions)
        if partitions:
            self._handler.on_lost(partitions)

    def _held(self, partitions: Iterable[Any]) -> list[Partition]:
        """Return these without the ones of a topic that is gone, which were dropped already."""
        return [p for p in (Partition(*tp) for tp in partitions) if p in self.epochs]

    def _forget(self, partitions: Iterable[Partition]) -> None:
        forgotten = set(partitions)
        self.epochs = {p: epoch for p, epoch in self.epochs.items() if p not in forgotten}

    def start_new_epoch(self, partition: Partition) -> None:
        """Poll thread: give the partition a new epoch, which fences what is in flight."""
        epochs = {partition: next(self._epoch)}
        self.epochs = self.epochs | epochs
        self._handler.on_assigned(epochs)

    def lose_all(self) -> None:
        """Poll thread: drop all partitions and fence what is in flight."""
        partitions, self.epochs = list(self.epochs), {}
        if partitions:
            self._handler.on_lost(partitions)

    def drop_topic(self, topic: str) -> None:
        """Poll thread: drop a deleted topic's partitions and fence what is in flight."""
        partitions = [partition for partition in self.epochs if partition.topic == topic]
        self._forget(partitions)
        if partitions:
            self._handler.on_deleted(partitions)

    def close(self) -> None:
        """End the revoke thread."""
        self._revoker.shutdown(wait=False)
