"""What happens when partitions come and go.

The client calls in while the poll thread is parked inside `poll` or `close`, so this may touch
what that thread owns: `on_revoked` on the revoke thread, the other two on the client's IO thread
(`kafka_io/source.py` walks through why that is no race). Imports core and the ground floor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from worker.clock import Clock
from worker.core.batcher import MicroBatcher
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition
from worker.kafka_io.listener import StartFrom
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions
from worker.runtime.last_steps import LastSteps

log = get_logger(__name__)

_LOOK_EVERY = 0.1  # seconds
_BEGINS: Mapping[StartFrom, str] = {
    "earliest": "the group has no offsets: starting at the earliest",
    "latest": "the group has no offsets: starting at the latest",
}


class Rebalance:
    """Drain first, let go second, partition by partition.

    Args:
        drain_timeout: seconds that a revocation may wait for what is in flight.

    Attributes:
        latest: when no revocation waits any more, seconds of the monotonic clock: a worker that
            stops has a deadline of its own.
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
        self.latest = math.inf

    def on_assigned(self, partitions: Mapping[Partition, int]) -> None:
        """Track these partitions from now on."""
        for partition, epoch in partitions.items():
            self._offsets.assign(partition, epoch)
        self._metrics.rebalances.labels("assigned").inc()
        log.info("partitions assigned", partitions=_named(partitions))

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        """Drain these partitions, commit, let go.

        What still waits in the batcher was never handed on: it is dropped, and the next owner
        polls it again. What was handed on is waited for: the stages go on by themselves, and
        the other partitions' records in the same batches with them.
        """
        gone = list(partitions)
        started = self._clock.monotonic()
        deadline = min(started + self._drain_timeout, self.latest)
        self._offsets.forget(entry.record.ref for entry in self._batcher.discard(gone))
        steps = LastSteps("while partitions are given back")
        # The rest is for the commit, also of what came before the drain failed.
        steps.take(lambda: self._drain(gone, deadline - self._drain_timeout / 5))
        if late := self._offsets.pending(gone):
            log.warning("partitions given up undrained, expect repeats", records=late)
        steps.take(lambda: self._commits.until(deadline))
        if steps.fault is not None:
            self._completions.failed(steps.fault)  # the main loop stops on it once it is back
        self._let_go(gone, "revoked")
        self._metrics.rebalance_drain.observe(self._clock.monotonic() - started)

    def _drain(self, gone: list[Partition], deadline: float) -> None:
        while self._offsets.pending(gone) and self._clock.monotonic() < deadline:
            self._commits.request_commit()
            self._completions.absorb(_LOOK_EVERY)

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        """Too late to commit: another worker has them already. Fence what is in flight."""
        gone = list(partitions)
        self._batcher.discard(gone)
        self._let_go(gone, "lost")
        log.warning("partitions lost: what is in flight for them does not count any more")

    def on_begun(
        self, positions: Mapping[Partition, int], where: StartFrom
    ) -> Mapping[Partition, int]:
        """Commit where the group begins, before anything is read there.

        A position that was chosen and not committed is chosen again by the next worker: at the end
        of the partition that would skip all that came meanwhile.
        """
        if fresh := self._offsets.begin(positions):
            self._metrics.begun.inc(len(fresh))
            log.info(_BEGINS[where], partitions=_named(fresh))
        return self._commits.first(positions)

    def on_skipped(self, partition: Partition, offsets: range) -> None:
        """Retention or deletion was faster than this worker: say so, for no one else will."""
        self._metrics.skipped.inc(len(offsets))
        log.warning(
            "offsets were deleted before they could be read",
            partition=_named([partition])[0],
            first=offsets.start,
            last=offsets.stop - 1,
        )

    def _let_go(self, partitions: list[Partition], kind: str) -> None:
        for partition in partitions:
            self._offsets.revoke(partition)
        self._metrics.remove_partitions(partitions)
        self._metrics.rebalances.labels(kind).inc()
        log.info("partitions let go", kind=kind, partitions=_named(partitions))


def _named(partitions: Iterable[Partition]) -> list[str]:
    return [f"{topic}[{partition}]" for topic, partition in sorted(partitions)]
