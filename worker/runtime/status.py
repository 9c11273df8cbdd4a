"""Updates gauges, health and logs once a second.

Owns: nothing; it reads the worker's parts and reports what they hold.
Thread: the poll thread.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from worker.core.records import Partition
from worker.runtime.context import InFlight, RecordPath, WorkerContext
from worker.runtime.holds import Holds
from worker.runtime.input_delays import InputDelays
from worker.runtime.outcome_counts import show_inflight

_INTERVAL = 1.0  # seconds


class StatusReporter:
    """Reports the worker's condition to metrics, health and log.

    Args:
        context: takes the report.
        work, path: what is reported.
        delays: looks for delays that other clients cause.
        holds: the partitions that wait for a schema.
        partitions: takes the partitions that this worker has.
    """

    def __init__(
        self,
        context: WorkerContext,
        work: InFlight,
        path: RecordPath,
        delays: InputDelays,
        holds: Holds,
        partitions: Callable[[Sequence[Partition]], None] = lambda _: None,
    ) -> None:
        self._metrics, self._progress = context.metrics, context.progress
        self._clock = context.clock
        self._work, self._offsets = work, work.offsets
        self._source, self._sink = path.source, path.sink
        self._delays, self._holds, self._note_partitions = delays, holds, partitions
        self._next = 0.0
        self._ends: dict[Partition, int] = {}

    def report_if_due(self) -> None:
        """Report, if a second has passed since the last report.

        Raises:
            TopicMissing: a topic that the sink writes to was deleted.
        """
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        self._sink.check()
        self._progress.oldest = oldest = self._offsets.oldest()
        show_inflight(self._metrics, self._offsets)
        self._metrics.oldest_uncommitted.set(now - oldest[1] if oldest else 0)
        self._progress.connection(up=self._source.connected())
        self._progress.registry(self._holds.away())
        self._metrics.waiting.set(len(self._holds.partitions))
        self._work.dead_letters.log_if_due()
        self._report_progress(now)
        partitions = self._offsets.partitions
        self._note_partitions(partitions)
        self._delays.check(self._source, partitions)
        self._count_arrived(partitions)
        lags = [lag for lag in map(self._report_lag, partitions) if lag is not None]
        self._work.throughput.log_if_due(sum(lags) if lags else None)

    def _report_progress(self, now: float) -> None:
        settled = self._source.settled()
        self._progress.waits(self._source.no_topic(), usual=True)
        self._progress.joined |= settled
        staged = len(self._work.batcher) + sum(stage.held for stage in self._progress.stages)
        self._progress.acknowledgements.note(
            self._offsets.records - staged, self._offsets.resolved, now
        )
        # During a rebalance a commit may have to wait for another member; that is not a stall.
        uncommitted = len(self._offsets.committable()) if settled else 0
        self._progress.commits.note(uncommitted, self._offsets.commits, now)
        self._progress.live()  # logs a stall even if no probe asks

    def _count_arrived(self, partitions: Iterable[Partition]) -> None:
        """Count by how much the ends grew since the last report.

        Growth of a partition that had no owner is not counted: its first end here begins the count.
        """
        ends = {one: end for one in partitions if (end := self._source.end_offset(one)) is not None}
        grown = (end - self._ends.get(one, end) for one, end in ends.items())
        self._metrics.arrived.inc(sum(growth for growth in grown if growth > 0))
        self._ends = ends

    def _report_lag(self, partition: Partition) -> int | None:
        end, committed = self._source.end_offset(partition), self._offsets.committed(partition)
        if committed is None and not self._offsets.pending([partition]):
            # No record has been polled yet, so the position is the group's committed offset.
            committed = self._source.positions().get(partition)
        if end is None or committed is None:
            return None
        topic, number = partition
        lag = max(0, end - committed)
        self._metrics.offset_lag.labels(topic, str(number)).set(lag)
        return lag
