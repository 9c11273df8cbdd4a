"""Handles partitions that are assigned, revoked or lost.

Owns: the order drain, commit, release; and the object that the consumer calls, `RebalanceListener`.
Thread: `on_revoked` runs on the revoke thread, the other callbacks on the client's IO thread or the
    poll thread, while the poll thread is parked inside `poll` or `close`. So they may touch objects
    of the poll thread; `kafka_io/listener.py` walks through why that is no race.
Must not import: kafka, inference, cli.

The parts depend on each other in a ring: the consumer takes a listener, the listener hands over to
a `Rebalance`, the `Rebalance` commits through `Commits`, and `Commits` takes the consumer and the
sink, which takes the consumer. `RebalanceListener` opens the ring where that is safe. It is made
first and holds no state; the consumer gets it, and everything else is then built whole, from its
dependencies up. The `Rebalance` comes last and is connected at once. The client calls a listener
only while it is polled, or while it is closed with partitions assigned, which it gets by polling;
and only a complete worker polls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from worker.clock import Clock
from worker.core.batcher import MicroBatcher
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition
from worker.kafka_io.listener import RebalanceHandler, StartFrom
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.cleanup import CleanupSteps
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions

log = get_logger(__name__)

_ABSORB_WAIT = 0.1  # seconds
_COMMIT_SHARE = 5  # this part of the drain's time is left for the commit
_START_MESSAGES: Mapping[StartFrom, str] = {
    "earliest": "the group has no offsets: starting at the earliest",
    "latest": "the group has no offsets: starting at the latest",
    "range": "the group has no offsets: starting where the range begins",
}


class RebalanceListener:
    """Forwards the consumer's callbacks to a handler that is built after the consumer."""

    def __init__(self) -> None:
        self._handler: RebalanceHandler | None = None

    def connect(self, handler: RebalanceHandler) -> None:
        """Forward to this handler from now on. Called once, before the first poll."""
        self._handler = handler

    @property
    def _connected(self) -> RebalanceHandler:
        if self._handler is None:
            raise RuntimeError("the consumer was polled before its rebalance handler was connected")
        return self._handler

    def on_assigned(self, partitions: Mapping[Partition, int]) -> None:
        self._connected.on_assigned(partitions)

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        self._connected.on_revoked(partitions)

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        self._connected.on_lost(partitions)

    def on_deleted(self, partitions: Iterable[Partition]) -> None:
        self._connected.on_deleted(partitions)

    def on_begun(
        self, positions: Mapping[Partition, int], where: StartFrom
    ) -> Mapping[Partition, int]:
        return self._connected.on_begun(positions, where)

    def on_skipped(self, partition: Partition, offsets: range) -> None:
        self._connected.on_skipped(partition, offsets)


class Rebalance:
    """Drains partitions before it releases them.

    Args:
        offsets, batcher, completions, commits: what the poll thread knows of records in flight.
        drain_timeout: seconds that a revocation may wait for records in flight.

    Attributes:
        latest_deadline: time after which no revocation waits, in seconds of the monotonic clock. A
            worker that stops sets it, because it has a deadline of its own.
    """

    def __init__(
        self,
        offsets: OffsetTracker,
        batcher: MicroBatcher,
        completions: Completions,
        commits: Commits,
        *,
        drain_timeout: float,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._offsets, self._batcher = offsets, batcher
        self._completions, self._commits = completions, commits
        self._drain_timeout = drain_timeout
        self._metrics, self._clock = metrics, clock
        self.latest_deadline = math.inf

    def on_assigned(self, partitions: Mapping[Partition, int]) -> None:
        """Track these partitions from now on."""
        for partition, epoch in partitions.items():
            self._offsets.assign(partition, epoch)
        self._metrics.rebalances.labels("assigned").inc()
        log.info("partitions assigned", partitions=_names(partitions))

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        """Drain these partitions, commit, and release them.

        Records that still wait in the batcher were never handed on. They are dropped, and the next
        owner polls them again. Records that were handed on are awaited: the stages keep working,
        also on other partitions' records in the same batches.
        """
        revoked = list(partitions)
        started = self._clock.monotonic()
        deadline = min(started + self._drain_timeout, self.latest_deadline)
        self._offsets.forget(entry.record.ref for entry in self._batcher.discard(revoked))
        steps = CleanupSteps("error while revoking partitions")
        # Some time is left for the commit, which also covers records settled before a failed drain.
        steps.run(lambda: self._drain(revoked, deadline - self._drain_timeout / _COMMIT_SHARE))
        if undrained := self._offsets.pending(revoked):
            log.warning("partitions revoked undrained, expect duplicates", records=undrained)
        steps.run(lambda: self._commits.commit_by(deadline))
        if steps.fault is not None:
            self._completions.failed(steps.fault)  # the main loop stops on it once it goes on
        self._release(revoked, "revoked")
        self._metrics.rebalance_drain.observe(self._clock.monotonic() - started)

    def _drain(self, partitions: list[Partition], deadline: float) -> None:
        while self._offsets.pending(partitions) and self._clock.monotonic() < deadline:
            self._commits.request_commit()
            self._completions.absorb(_ABSORB_WAIT)

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        """Fence the records in flight: another worker owns these partitions already."""
        lost = list(partitions)
        self._batcher.discard(lost)
        self._release(lost, "lost")
        log.warning("partitions lost: their records in flight are ignored, expect duplicates")

    def on_deleted(self, partitions: Iterable[Partition]) -> None:
        """Fence the records in flight: their offsets would skip records of a new topic."""
        deleted = list(partitions)
        self._batcher.discard(deleted)
        self._release(deleted, "deleted")

    def on_begun(
        self, positions: Mapping[Partition, int], where: StartFrom
    ) -> Mapping[Partition, int]:
        """Commit where the group starts, before any record is read.

        Without this commit, the next worker would choose the position again; at the end of the
        partition it would skip all records that arrived meanwhile.
        """
        if new := self._offsets.begin(positions):
            self._metrics.begun.inc(len(new))
            log.info(_START_MESSAGES[where], partitions=_names(new))
        return self._commits.commit_start(positions)

    def on_skipped(self, partition: Partition, offsets: range) -> None:
        """Count and log records that retention or deletion removed before they were polled."""
        if not offsets:  # none of them belong to the range that is read
            return
        self._metrics.skipped.inc(len(offsets))
        log.warning(
            "offsets were deleted before they could be read",
            partition=_name(partition),
            first=offsets.start,
            last=offsets.stop - 1,
        )

    def _release(self, partitions: list[Partition], kind: str) -> None:
        for partition in partitions:
            self._offsets.revoke(partition)
        self._metrics.remove_partitions(partitions)
        self._metrics.rebalances.labels(kind).inc()
        log.info("partitions released", kind=kind, partitions=_names(partitions))


def _names(partitions: Iterable[Partition]) -> list[str]:
    return [_name(partition) for partition in sorted(partitions)]


def _name(partition: Partition) -> str:
    return f"{partition.topic}[{partition.partition}]"
