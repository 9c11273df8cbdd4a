"""Commits the group's offsets.

Owns: the decision when offsets are committed, and through whom.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from worker import timeline
from worker.clock import Clock
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition, RecordRef
from worker.errors import BrokerAway, StreamlabelError
from worker.kafka_io.sink import RecordSink
from worker.kafka_io.source import RecordSource
from worker.logs import get_logger
from worker.metrics import Metrics

log = get_logger(__name__)

_MIN_TIMEOUT = 0.5  # seconds; a commit that is tried at all gets a chance to be answered
_START_TIMEOUT = 5.0  # seconds for the group's first positions, on the poll thread
_GAP_INTERVAL = 1.0  # seconds between transactions that hold positions but no outcome


class Commits:
    """Commits acknowledged offsets: periodically while running, and synchronously at the end.

    Args:
        offsets: knows which offsets may be committed.
        source: commits the offsets, unless the sink does.
        sink: commits the offsets itself if `commits_offsets` is true (exactly once).
        interval: seconds between commits.
        on_failure: called with an error that no retry will fix.

    Attributes:
        request_commit: asks the sink to complete its outstanding work soon, because someone waits.
    """

    def __init__(
        self,
        offsets: OffsetTracker,
        source: RecordSource,
        sink: RecordSink,
        interval: float,
        *,
        metrics: Metrics,
        clock: Clock,
        on_failure: Callable[[StreamlabelError], None],
    ) -> None:
        self._offsets, self._source, self._sink = offsets, source, sink
        self._interval = interval
        self._metrics, self._clock, self._on_failure = metrics, clock, on_failure
        self._sink_commits = sink.commits_offsets
        self.request_commit = sink.request_commit
        self._in_flight = False
        self._next_commit = self._next_gap_commit = 0.0

    def commit_if_due(self) -> None:
        """Start a commit without waiting for it, at most one at a time."""
        now = self._clock.monotonic()
        if self._in_flight or now < self._next_commit:
            return
        self._offsets.reach(self._source.positions())
        offsets = self._offsets.committable()
        if not offsets:
            return
        self._next_commit = now + self._interval
        if self._sink_commits:
            self._leave_to_sink(now)
            return
        self._in_flight = True
        self._source.commit_async(offsets, self._on_answer(self._offsets.refs(offsets), now))

    def _leave_to_sink(self, now: float) -> None:
        """Note the sink's own commits, and give it positions that lie behind a gap.

        A gap has no record, so no transaction of the sink would commit the position behind it.
        """
        self._note_acknowledged()
        gaps = self._offsets.committable()
        if gaps and now >= self._next_gap_commit:
            self._next_gap_commit = now + _GAP_INTERVAL
            self._sink.keep(self._offsets.refs(gaps))

    def commit_start(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Commit where the group starts in these partitions, before any record of them is read.

        Returns:
            The start positions that the broker has stored so far; call again for the others.

        Raises:
            BrokerAway: the commit failed for now; call again.
            AccessDenied, Fenced: the commit is refused for good.
        """
        starts = self._offsets.begun(partitions)
        if not self._sink_commits:
            self._source.commit(starts, _START_TIMEOUT)
            self._offsets.mark_committed(starts)
            return starts
        uncommitted = {p: at for p, at in starts.items() if self._offsets.committed(p) is None}
        if uncommitted:
            self._sink.keep(self._offsets.refs(uncommitted))
            self.request_commit()
        return {p: at for p, at in starts.items() if p not in uncommitted}

    def _note_acknowledged(self) -> None:
        """Mark as committed what the sink acknowledged: its transactions held the offsets too."""
        if offsets := self._offsets.acknowledged():
            self._offsets.mark_committed(offsets)

    def _on_answer(
        self, offsets: Sequence[RecordRef], started: float
    ) -> Callable[[StreamlabelError | None], None]:
        def answered(error: StreamlabelError | None) -> None:
            self._in_flight = False
            if error is None:
                # By ref, so that an epoch that ended meanwhile is ignored: the log may have been
                # truncated.
                self._offsets.mark_kept(offsets)
                now = self._clock.monotonic()
                self._metrics.stage.labels("commit").observe(now - started)
                timeline.interval("commit", started, now, partitions=len(offsets))
            elif isinstance(error, BrokerAway):
                log.debug("commit failed, retrying", reason=str(error))
            else:
                self._on_failure(error)

        return answered

    def commit_by(self, deadline: float, between_tries: Callable[[], object] | None = None) -> None:
        """Commit and wait for the answer.

        Args:
            deadline: seconds of the monotonic clock; the last try starts before it.
            between_tries: called before each retry, for example to let a rebalance complete; None
                allows a single try.
        """
        if self._sink_commits:
            self._note_acknowledged()
            return
        while offsets := self._offsets.committable():
            left = deadline - self._clock.monotonic()
            try:
                self._source.commit(offsets, max(left, _MIN_TIMEOUT))
                self._offsets.mark_committed(offsets)
            except BrokerAway as error:
                if between_tries is None or left <= 0:
                    log.warning("commit failed, expect duplicates", reason=str(error))
                    return
                between_tries()
