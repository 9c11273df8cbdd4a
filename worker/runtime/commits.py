"""When the group's offsets are committed. Poll thread (or the revoke thread in its place).

Imports core, kafka_io's protocols and the ground floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from worker.clock import Clock
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition, RecordRef
from worker.errors import BrokerAway, StreamlabelError
from worker.kafka_io.sink import RecordSink
from worker.kafka_io.source import RecordSource
from worker.logs import get_logger
from worker.metrics import Metrics

log = get_logger(__name__)

_LEAST_WAIT = 0.5  # seconds; a commit that is tried at all gets a chance to be answered
_FIRST_WAIT = 5.0  # seconds for the group's first positions, on the poll thread
_BARE_EVERY = 1.0  # seconds between transactions that hold no outcome, only positions


class Commits:
    """Commits what is acknowledged: now and then while running, and for certain at the end.

    Args:
        offsets: knows what may be committed.
        interval: seconds between commits.
        on_failure: told of an error that no retry will mend.

    Attributes:
        request_commit: tells the sink that somebody waits for what it has.
    """

    def __init__(
        self,
        offsets: OffsetTracker,
        interval: float,
        metrics: Metrics,
        clock: Clock,
        on_failure: Callable[[StreamlabelError], None],
    ) -> None:
        self._offsets, self._interval = offsets, interval
        self._metrics, self._clock, self._on_failure = metrics, clock, on_failure
        self._source: RecordSource
        self._sink: RecordSink
        self.request_commit: Callable[[], None]
        self._elsewhere = False
        self._in_flight = False
        self._next = self._next_bare = 0.0

    def attach(self, source: RecordSource, sink: RecordSink) -> None:
        """Commit through `source`, unless the sink commits offsets itself."""
        self._source, self._sink, self._elsewhere = source, sink, sink.commits_offsets
        self.request_commit = sink.request_commit

    def if_due(self) -> None:
        """Start a commit without waiting for it, at most one at a time."""
        now = self._clock.monotonic()
        if self._in_flight or now < self._next:
            return
        self._offsets.reach(self._source.positions())
        offsets = self._offsets.committable()
        if not offsets:
            return
        self._next = now + self._interval
        if self._elsewhere:
            self._leave_to_sink(now)
            return
        self._in_flight = True
        self._source.commit_async(offsets, self._done(self._offsets.refs(offsets), now))

    def _leave_to_sink(self, now: float) -> None:
        self._note_acknowledged()
        gaps = self._offsets.committable()
        if gaps and now >= self._next_bare:
            self._next_bare = now + _BARE_EVERY
            self._sink.keep(self._offsets.refs(gaps))

    def first(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Commit where the group begins in these partitions, before anything is read of them.

        Returns:
            What the broker holds of these positions by now; ask again for the others.

        Raises:
            BrokerAway: they could not be committed now: ask again.
            AccessDenied, Fenced: for good.
        """
        begins = self._offsets.begun(partitions)
        if not self._elsewhere:
            self._source.commit(begins, _FIRST_WAIT)
            self._offsets.mark_committed(begins)
            return begins
        left = {p: at for p, at in begins.items() if self._offsets.committed(p) is None}
        if left:
            self._sink.keep(self._offsets.refs(left))
            self.request_commit()
        return {p: at for p, at in begins.items() if p not in left}

    def _note_acknowledged(self) -> None:
        """The sink has committed these with its transactions, before it told of them."""
        if offsets := self._offsets.acknowledged():
            self._offsets.mark_committed(offsets)

    def _done(
        self, offsets: Sequence[RecordRef], started: float
    ) -> Callable[[StreamlabelError | None], None]:
        def done(error: StreamlabelError | None) -> None:
            self._in_flight = False
            if error is None:
                self._offsets.mark_kept(offsets)  # the log may have been cut back meanwhile
                self._metrics.stage.labels("commit").observe(self._clock.monotonic() - started)
            elif isinstance(error, BrokerAway):
                log.debug("commit failed, trying again", reason=str(error))
            else:
                self._on_failure(error)

        return done

    def until(self, deadline: float, between_tries: Callable[[], object] | None = None) -> None:
        """Commit and wait for it.

        Args:
            deadline: in seconds of the monotonic clock; the last try starts before it.
            between_tries: called before another try (a rebalance may have to be sat out); None
                leaves it at one try.
        """
        if self._elsewhere:
            self._note_acknowledged()
            return
        while offsets := self._offsets.committable():
            left = deadline - self._clock.monotonic()
            try:
                self._source.commit(offsets, max(left, _LEAST_WAIT))
                self._offsets.mark_committed(offsets)
            except BrokerAway as error:
                if between_tries is None or left <= 0:
                    log.warning("could not commit, expect repeats", reason=str(error))
                    return
                between_tries()
