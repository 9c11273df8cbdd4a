"""Turns polled records into micro-batches and hands them to the pipeline.

Owns: decoder, batcher, and the records that are held back while the stream may be unreadable.
Thread: the poll thread. The batcher is shared with the revoke thread, which runs while the poll
    thread is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker import timeline
from worker.clock import Clock
from worker.core.batcher import MicroBatcher
from worker.core.decoder import Decoder, estimate_tokens
from worker.core.formats.format import SchemaPending
from worker.core.offsets import OffsetTracker
from worker.core.readability import Readability
from worker.core.records import Partition, RawRecord, WorkItem
from worker.metrics import Metrics
from worker.runtime.holds import Holds
from worker.runtime.outcome_counts import count_polled
from worker.runtime.pipeline import RecordPipeline

# How long `poll` may wait, in seconds: an upper bound of the delay after which a completion is
# noticed while no records arrive.
IDLE_POLL = 0.1
BUSY_POLL = 0.01
# While the model has work for longer, an empty poll is repeated less often: each takes a core and
# the interpreter's lock from it, 0.5 ms of CPU.
_CALM_POLL = 0.05
_LOOKS = 4  # empty polls, at least, in the time that the model still needs


class Intake:
    """Decodes records, collects them, and offers micro-batches to the pipeline.

    Args:
        decoder: reads the texts.
        readability: decides whether the stream can be read at all.
        batcher: collects the records.
        offsets: tracks each record before anything else happens to it.
        pipeline: takes the micro-batches.
        holds: the partitions that wait for a schema.
    """

    def __init__(
        self,
        decoder: Decoder,
        readability: Readability,
        batcher: MicroBatcher,
        offsets: OffsetTracker,
        pipeline: RecordPipeline,
        holds: Holds,
        *,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._decoder, self._readability = decoder, readability
        self._batcher, self._offsets, self._pipeline = batcher, offsets, pipeline
        self._holds, self._metrics, self._clock = holds, metrics, clock

    def accept(self, records: Sequence[RawRecord], *, paused: bool) -> None:
        """Take the records of one poll.

        Args:
            records: in poll order.
            paused: True if polling is paused. A poll without records then says nothing about the
                stream.

        Raises:
            StreamUnreadable: too many of the last records are unreadable for one reason.
            StageCrashed: the thread that asks the schema registry has ended.
        """
        if records or not paused:
            self._readability.polled(len(records), self._clock.monotonic())
        if not records:
            return
        with timeline.span("decode", records=len(records)):
            accepted = self._accept_all(records)
        count_polled(self._metrics, accepted, self._offsets)

    def _accept_all(self, records: Sequence[RawRecord]) -> int:
        """Accept the records whose schemas are known, and return their number.

        A record with another schema holds its partition. It is not tracked, nor is any later one of
        the partition: all of them are polled again.
        """
        accepted = 0
        held: set[Partition] = set()
        for record in records:
            if held and _partition_of(record) in held:
                continue
            try:
                self._accept(record)
                accepted += 1
            except SchemaPending as pending:
                self._holds.hold(record.ref, pending.schema)
                held.add(_partition_of(record))
        return accepted

    def _accept(self, record: RawRecord) -> None:
        entry, now = self._decoder.decode(record), self._clock.monotonic()
        hold = self._readability.note(entry, now)  # a record that stops the worker is not tracked
        self._offsets.track(record)
        tokens = estimate_tokens(entry.text) if isinstance(entry, WorkItem) else 0
        self._batcher.add(entry, tokens, now, hold=hold)

    def release_settled(self) -> None:
        """Continue with the partitions whose schemas have become known."""
        self._holds.release_settled()

    def hand_over(self) -> None:
        """Offer the micro-batches that are due, while the pipeline has room."""
        if self._batcher.held and self._readability.waited(self._clock.monotonic()):
            self._batcher.release()
        while self._batcher.ready and self._pipeline.has_room:
            now = self._clock.monotonic()
            demand = self._pipeline.demand(self._batcher.tokens)
            trigger = self._batcher.due(now, demand)
            if trigger is None:
                return
            batch = self._batcher.take(trigger, now, demand.most_tokens)
            self._metrics.micro_batches.labels(trigger).inc()
            self._metrics.batch_records.observe(len(batch.entries))
            self._pipeline.offer(batch)

    def poll_timeout(self) -> float:
        """Return how many seconds `poll` may wait for records without delaying other work."""
        if not self._batcher.ready and not self._offsets.records:
            return BUSY_POLL if self._holds.waits else IDLE_POLL
        demand, now = self._pipeline.demand(self._batcher.tokens), self._clock.monotonic()
        timeout = max(BUSY_POLL, min(_CALM_POLL, (demand.busy_until - now) / _LOOKS))
        if self._batcher.ready:
            # `hand_over` has just offered all that was wanted by now. If nothing is on the way to
            # the model, the pipeline had room. So this is not a busy loop.
            timeout = min(timeout, max(0.0, demand.at - now))
        return timeout

    def discard(self) -> None:
        """Drop the records that were never handed on; they will be polled again."""
        self._offsets.forget(entry.record.ref for entry in self._batcher.discard())


def _partition_of(record: RawRecord) -> Partition:
    return Partition(record.ref.topic, record.ref.partition)
