"""Polls records and commits offsets: the consumer and its rebalances.

Owns: the consumer.
Thread: poll; `current` and `group_metadata` are for any thread.
Must not import: inference, runtime.

::

    bounded_partitions  where to begin and end, if only a range is read
    end_offsets     the ends of the partitions, also of those that are not fetched now
    held_partitions what is not fetched, and from which record on
    listener        the group's rebalances, without blocking the client
    membership      does the group still count this worker as a member
    positions       positions that the log or the group lacks
    stable_offsets  how far other producers' transactions let the input be read
    topic_watch     are the topics still the same ones
    topic_finder    which topics match a pattern now
    topic_notes     which of the group's offsets are of a deleted topic
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import IllegalStateError, KafkaError
from kafka.structs import MemberState

from worker.clock import Clock
from worker.core.records import Partition, RawRecord, RecordRef
from worker.core.when import Span
from worker.errors import BrokerAway, StreamlabelError, TopicMissing
from worker.kafka_io import internals
from worker.kafka_io.bounded_partitions import BoundedPartitions, Unbounded
from worker.kafka_io.bounded_poll import BoundedPoller
from worker.kafka_io.connection import CONSUMER_OPTIONS, connect
from worker.kafka_io.conversion import commit_request, raw_record
from worker.kafka_io.end_offsets import EndOffsets
from worker.kafka_io.held_partitions import HeldPartitions
from worker.kafka_io.leader_epochs import LeaderEpochs
from worker.kafka_io.listener import Listener, RebalanceHandler
from worker.kafka_io.membership import Membership
from worker.kafka_io.positions import POSITION_ERRORS, Positions
from worker.kafka_io.stable_offsets import StableOffsets
from worker.kafka_io.topic_finder import PrepareOutputs, TopicFinder
from worker.kafka_io.topic_notes import TopicNotes
from worker.kafka_io.topic_watch import TopicWatch
from worker.kafka_io.translation import translate
from worker.settings import Settings

_SHORT_WAIT = 0.05  # seconds; a shorter wait is slept
_FETCHED_ONLY = 0.001  # seconds; returns records that are fetched already
_JOIN_WAIT = 0.5  # seconds; a wait inside the client while the group rebalances

CommitDone = Callable[[StreamlabelError | None], None]


class RecordSource(Protocol):
    """The input topics, as one member of the group reads them."""

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]: ...
    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None: ...
    def commit_async(self, offsets: Mapping[Partition, int], done: CommitDone) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def hold(self, ref: RecordRef) -> None: ...
    def release(self, partition: Partition) -> None: ...
    def connected(self) -> bool: ...
    def settled(self) -> bool: ...
    def no_topic(self) -> str | None: ...
    def end_offset(self, partition: Partition) -> int | None: ...
    def stable_end(self, partition: Partition) -> int | None: ...
    def positions(self) -> dict[Partition, int]: ...
    def finished(self) -> bool: ...
    def group_metadata(self) -> Any: ...
    def close(self, timeout: float) -> None: ...


class KafkaSource:
    """A consumer-group member with cooperative-sticky assignment and manual commits.

    Args:
        settings: cluster, group and topics.
        handler: called at every change of the assignment.
        clock: stamps records.
        prepare: makes the outputs of inputs that match a pattern ready; called before they are
            read.
        span: the range to read; None for all records, without an end.

    Raises:
        BrokerAway: no broker answers; try again.
        Fatal: wrong credentials and the like.
    """

    def __init__(
        self,
        settings: Settings,
        handler: RebalanceHandler,
        clock: Clock,
        prepare: PrepareOutputs = lambda _: None,
        span: Span | None = None,
    ) -> None:
        self._clock, self._topics = clock, settings.topics
        self._pause_when_empty = settings.kafka.empty_poll_pause_ms / 1000
        self._consumer = connect(KafkaConsumer, settings.kafka, **_consumer_options(settings))
        self._poller = BoundedPoller(self._consumer, settings.kafka, settings.max_inflight_bytes)
        self._stable_offsets = StableOffsets(self._consumer)
        self._membership = Membership(self._consumer, settings.kafka.session_timeout, clock)
        self._topic_notes = TopicNotes(self._consumer, self._topic_id, clock)
        # The loop that runs the listener does not notice a future that another thread completed.
        wake = internals.wakeup_of(self._consumer)
        self._listener = Listener(handler, wake, clock, settings.kafka.rejoin_pause_ms / 1000)
        self._held = HeldPartitions(self._consumer, lambda: self._listener.epochs)
        self._ends = EndOffsets(self._consumer, lambda: self._listener.epochs, clock)
        self._range = (
            BoundedPartitions(self._consumer, settings.kafka, span) if span else Unbounded()
        )
        self._polled: dict[Any, list[Any]] = {}  # by the last `poll`
        self._leader_epochs = LeaderEpochs()
        self._positions = Positions(
            self._consumer,
            from_start=span is not None or settings.input.start == "earliest",
            begin=self._range.begin,
            on_begun=handler.on_begun,
            start_new_epoch=self._listener.start_new_epoch,
            on_skipped=lambda p, offsets: handler.on_skipped(p, self._range.lose(p, offsets)),
            remade=self._topic_notes.remade,
        )
        try:
            self._topic_watch = self._subscribe(prepare)
            self._positions.inspect_group(self._topic_watch.names)
        except (KafkaError, StreamlabelError) as error:
            self._consumer.close(autocommit=False, timeout_ms=1000)
            raise translate(error) from error

    def _subscribe(self, prepare: PrepareOutputs) -> TopicWatch | TopicFinder:
        """Subscribe to the topics, and return what tells when one of them changes.

        A member that becomes leader before it knows the topics' partitions assigns none, and the
        library does not always notice. So the metadata are fetched before the group is joined.
        """
        consumer, names = self._consumer, self._topics.inputs
        if self._topics.pattern is None:
            consumer.subscribe(list(names), listener=self._listener)
            for name in names:
                consumer.partitions_for_topic(name)
            return TopicWatch(internals.consumer_metadata(consumer), names, self._clock)
        internals.subscribe_to_found(consumer, self._listener)
        consumer.topics()
        finder = TopicFinder(consumer, self._topics, self._listener, self._positions, prepare)
        finder.check()
        return finder

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]:
        """Return the records available within `timeout` seconds, in offset order by partition.

        Also drives rebalances: the handler is called during this call, and only then.
        """
        # While work is in flight the waits are short. It is better to sleep than to wait inside the
        # client, which would wake up for every response, even an empty one, and take the
        # interpreter's lock from the model's thread each time.
        pause = timeout if timeout <= _SHORT_WAIT else min(timeout, self._pause_when_empty)
        polled = self._poll(_FETCHED_ONLY if pause else timeout, max_records)
        if not polled and not self.settled():
            # The client discards a join that ends between two polls and begins another, for the
            # whole group. So stay inside the client during a rebalance.
            polled = self._poll(_JOIN_WAIT, max_records)
        elif not polled and pause:
            self._clock.sleep(pause)
        self._polled = polled
        self._leader_epochs.note(polled)
        self._leader_epochs.reach(internals.consumed_offsets(self._consumer))
        now, now_ms = self._clock.monotonic(), self._clock.wall_ms()
        epochs = self._listener.epochs
        return [
            raw_record(record, epochs[Partition(*tp)], now, now_ms)
            for tp, records in polled.items()
            if Partition(*tp) in epochs
            for record in records
        ]

    def _poll(self, timeout: float, max_records: int) -> dict[Any, list[Any]]:
        self._check()
        self._ends.ask_if_due()
        self._held.stop_at_end(self._range.at_end(self.positions()))
        self._return_parked_records()
        try:
            try:
                polled = self._poller.poll(timeout * 1000, max_records)
            except POSITION_ERRORS as error:
                if self._topic_notes.settled():
                    self._positions.recover(error)
                polled = {}
        except KafkaError as error:
            raise translate(error) from error
        return self._range.below(polled)

    def _check(self) -> None:
        """Raise if a topic was deleted or the group has refused this worker."""
        try:
            self._topic_watch.check()
        except KafkaError as error:
            raise translate(error) from error
        except TopicMissing:
            if self._topics.pattern is not None:  # an output of a new topic is missing
                raise
            # The offsets in flight belong to a deleted log. If they were committed, as many records
            # of a new topic of that name would be skipped.
            self._listener.lose_all()
            raise
        self._membership.check()

    def _return_parked_records(self) -> None:
        """Let the client return records that it fetched before their partition was paused.

        The client parks such records and fetches no more of the partition until they are taken. It
        takes them up only while its slot for current records is None, which a used-up slot is not:
        partition 0 is paused and parked, partition 1 is assigned in a rebalance and used up before
        it is paused too, both are resumed, and the records of 0 stay parked for good.
        """
        internals.return_parked_records(self._consumer)

    def settled(self) -> bool:
        """Return whether this member has its share of the group's partitions, if any."""
        return self._consumer.group_metadata().state is MemberState.STABLE

    def no_topic(self) -> str | None:
        """Return why there is no topic to read, if no topic matches the pattern."""
        if self._topic_watch.names:
            return None
        return f"no topic matches input.topic_pattern = {self._topics.pattern!r} yet"

    def current(self, ref: RecordRef) -> bool:
        """Any thread: return whether the assignment under which the record was polled is current.

        Raises:
            BrokerAway: unknown until the group has answered: ask again.
            Fenced, AccessDenied: the group has refused this worker.
        """
        if self._listener.epochs.get(Partition(ref.topic, ref.partition)) != ref.epoch:
            return False
        self._membership.require_confirmed()
        return True

    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        """Commit and wait; safe on the revoke thread while the poll thread is parked."""
        if self._topic_watch.missing():  # the client would ask for it until `timeout`
            raise BrokerAway("an input topic is missing")
        try:
            self._consumer.commit(self._commit_request(offsets), timeout_ms=timeout * 1000)
        except KafkaError as error:
            raise _commit_error(error) from error

    def commit_async(self, offsets: Mapping[Partition, int], done: CommitDone) -> None:
        """Commit; `done` is called from a later `poll`, on the poll thread."""

        def finished(_: object, result: object) -> None:
            done(_commit_error(result) if isinstance(result, Exception) else None)

        try:
            self._consumer.commit_async(self._commit_request(offsets), callback=finished)
        except KafkaError as error:
            done(_commit_error(error))

    def pause(self) -> None:
        """Stop fetching the assigned partitions; call again after a rebalance."""
        self._held.pause()

    def resume(self) -> None:
        """Fetch again, except the partitions that are held."""
        self._held.resume()

    def hold(self, ref: RecordRef) -> None:
        """Return a record to its partition, and fetch nothing of the partition until `release`.

        Args:
            ref: a record of the last `poll`, which the caller does not track, nor any later one of
                the partition. `positions` then never passes a record that nobody tracks.
        """
        polled = self._polled[TopicPartition(ref.topic, ref.partition)]
        epoch: int = next(one.leader_epoch for one in polled if one.offset == ref.offset)
        self._held.hold(ref, epoch)

    def release(self, partition: Partition) -> None:
        """Fetch a held partition again; one that has left this worker is forgotten."""
        self._held.release(partition)

    def connected(self) -> bool:
        """Return whether any broker connection is up."""
        metrics = self._consumer.metrics() or {}
        return bool(metrics.get("consumer-metrics", {}).get("connection-count", 1))

    def end_offset(self, partition: Partition) -> int | None:
        """Return the partition's end offset as of the last fetch or answer."""
        try:
            end: int | None = self._consumer.highwater(TopicPartition(*partition))
        except IllegalStateError:  # it was revoked a moment ago
            return None
        known = [one for one in (end, self._ends.get(partition)) if one is not None]
        return self._range.clip(partition, max(known)) if known else None

    def stable_end(self, partition: Partition) -> int | None:
        """Return the offset of the first open transaction, else the end, as of the last fetch."""
        stable = self._stable_offsets.get(partition)
        return None if stable is None else self._range.clip(partition, stable)

    def positions(self) -> dict[Partition, int]:
        """Return the offset of the next record that `poll` returns, by partition, if known.

        Everything before it was returned, and not taken back by `hold`, or is no record for us (a
        transaction's marker, an aborted record). The client moves it forward in `poll` only, past
        what that returns: not past what it has fetched beyond `max_records`, nor past what it
        parked when the partition was paused. Nor is it beyond the end of the partition's range.
        """
        offsets = internals.consumed_offsets(self._consumer)  # `position` would ask the broker
        epochs = self._listener.epochs
        return {
            partition: self._range.clip(partition, at.offset)
            for partition, at in ((Partition(*tp), at) for tp, at in offsets.items())
            if partition in epochs
        }

    def _topic_id(self, name: str) -> Any:
        return self._topic_watch.topic_id(name)

    def note(self, partition: Partition) -> str:
        """Any thread: return the metadata of the partition's committed offsets."""
        return self._range.note(partition) or self._topic_notes.note(partition)

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        """Any thread: return the epoch of the leader that wrote a polled record, -1 if unknown."""
        return self._leader_epochs.of(partition, offset)

    def _commit_request(self, offsets: Mapping[Partition, int]) -> Any:
        return commit_request(offsets, self.note, self.leader_epoch)

    def finished(self) -> bool:
        """Return whether the whole group has labelled and committed its range.

        Raises:
            BrokerAway: the group did not answer: ask again.
            Fatal: the group has another range.
        """
        try:
            return self._range.finished(self.positions(), self._topic_watch.names)
        except KafkaError as error:
            raise translate(error) from error

    def group_metadata(self) -> Any:
        """Any thread: return a snapshot of the membership, for transactions."""
        return self._consumer.group_metadata()

    def close(self, timeout: float) -> None:
        """Leave the group; wait for a rebalance in progress up to `timeout` seconds."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=timeout * 1000)
        except KafkaError as error:
            raise translate(error) from error
        finally:
            self._listener.close()


def _consumer_options(settings: Settings) -> dict[str, Any]:
    kafka = settings.kafka
    # Besides hiding aborted records, read_committed makes the consumer wait for stable offsets when
    # it takes over a partition in exactly-once mode.
    return CONSUMER_OPTIONS | {
        "group_id": kafka.group_id,
        "group_instance_id": kafka.group_instance_id,
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "auto_offset_reset": "none",  # `positions` decides
        "session_timeout_ms": int(kafka.session_timeout * 1000),
        # A member learns of a rebalance from its heartbeat, and the others wait for it that long.
        "heartbeat_interval_ms": int(min(1.0, kafka.session_timeout / 3) * 1000),
        "max_poll_interval_ms": int(kafka.max_poll_interval * 1000),
        "fetch_min_bytes": kafka.fetch_min_bytes,
        "fetch_max_wait_ms": int(kafka.fetch_max_wait * 1000),
        "fetch_max_bytes": kafka.fetch_max_bytes,
        "max_partition_fetch_bytes": kafka.max_partition_fetch_bytes,
    }


def _commit_error(error: Exception) -> StreamlabelError:
    """Translate the error of a commit; a coordinator that just started may not know a topic yet."""
    cause = translate(error)
    return BrokerAway(str(cause)) if isinstance(cause, TopicMissing) else cause
