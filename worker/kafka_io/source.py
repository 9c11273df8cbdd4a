"""Records in, offsets out: the consumer and its rebalances.

The poll thread owns `KafkaSource`; `current` and `group_metadata` are for any thread. Translates
the client's exceptions; imports no inference and no runtime.

::

    listener     the group's rebalances, without blocking the client
    membership   whether the group still counts this worker in
    positions    where to read on when the log has not the position
    stability    how far other producers' transactions let it be read
    watch        whether the topic still is the one that it was
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import IllegalStateError, KafkaError
from kafka.structs import MemberState

from worker.clock import Clock
from worker.core.records import Partition, RawRecord, RecordRef
from worker.errors import BrokerAway, StreamlabelError, TopicMissing
from worker.kafka_io.connection import connect
from worker.kafka_io.listener import Listener, RebalanceHandler
from worker.kafka_io.membership import Membership
from worker.kafka_io.polled import raw_record
from worker.kafka_io.portions import Portions
from worker.kafka_io.positions import LOST, Positions
from worker.kafka_io.stability import StableEnds
from worker.kafka_io.translation import translate
from worker.kafka_io.watch import TopicWatch
from worker.settings import Settings

_SHORT = 0.01  # seconds: a wait that is slept
_GLANCE = 0.001  # seconds: what is there already
_JOIN = 0.5  # seconds: a wait inside the client while the group settles

CommitDone = Callable[[StreamlabelError | None], None]


class RecordSource(Protocol):
    """Where records come from."""

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]: ...
    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None: ...
    def commit_async(self, offsets: Mapping[Partition, int], done: CommitDone) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def connected(self) -> bool: ...
    def settled(self) -> bool: ...
    def end_offset(self, partition: Partition) -> int | None: ...
    def stable_end(self, partition: Partition) -> int | None: ...
    def positions(self) -> dict[Partition, int]: ...
    def group_metadata(self) -> Any: ...
    def close(self, timeout: float) -> None: ...


class KafkaSource:
    """A consumer-group member with cooperative-sticky assignment and manual commits.

    Args:
        settings: cluster, group and topic.
        handler: told of every change of the assignment.
        clock: stamps records.

    Raises:
        BrokerAway: no broker answers; try again.
        Fatal: wrong credentials and the like.
    """

    def __init__(self, settings: Settings, handler: RebalanceHandler, clock: Clock) -> None:
        self._clock = clock
        self._pause_when_empty = settings.kafka.empty_poll_pause_ms / 1000
        self._consumer = connect(KafkaConsumer, settings.kafka, **_consumer_options(settings))
        self._portions = Portions(self._consumer, settings.kafka, settings.max_inflight_bytes)
        self._stable_ends = StableEnds(self._consumer)
        self._membership = Membership(self._consumer, settings.kafka.session_timeout, clock)
        # The loop that runs the listener does not see that another thread completed a future.
        wake = self._consumer._net.wakeup  # noqa: SLF001 - there is no public way
        self._listener = Listener(handler, wake, clock, settings.kafka.rejoin_pause_ms / 1000)
        self._positions = Positions(
            self._consumer,
            from_start=settings.input.start == "earliest",
            on_begun=handler.on_begun,
            begin_anew=self._listener.begin_anew,
            on_skipped=handler.on_skipped,
        )
        try:
            self._consumer.subscribe([settings.input.topic], listener=self._listener)
            # A member that is elected leader before it knows the topic's partitions assigns
            # nobody anything, and the library does not always notice: know them first.
            self._consumer.partitions_for_topic(settings.input.topic)
            self._positions.look(settings.input.topic)
        except KafkaError as error:
            self._consumer.close(autocommit=False, timeout_ms=1000)
            raise translate(error) from error
        metadata = self._consumer._cluster  # noqa: SLF001 - there is no public way
        self._watch = TopicWatch(metadata, [settings.input.topic], clock)

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]:
        """Records that are there within `timeout` seconds, each partition's in offset order.

        Also drives rebalances: the handler is called while this call is under way, and only then.
        """
        # While work is in flight the waits are short, and sleeping them is better than to have
        # the client wait: it would wake up for every answer of the broker, empty ones too, and
        # take the interpreter's lock from the model's thread each time.
        pause = timeout if timeout <= _SHORT else min(timeout, self._pause_when_empty)
        polled = self._look(_GLANCE if pause else timeout, max_records)
        if not polled and not self.settled():
            # A join that ends between two polls is thrown away by the client and begun anew, for
            # the whole group: during a rebalance stay inside.
            polled = self._look(_JOIN, max_records)
        elif not polled and pause:
            self._clock.sleep(pause)
        now, now_ms = self._clock.monotonic(), self._clock.wall_ms()
        epochs = self._listener.epochs
        return [
            raw_record(record, epochs[Partition(*tp)], now, now_ms)
            for tp, records in polled.items()
            if Partition(*tp) in epochs
            for record in records
        ]

    def _look(self, timeout: float, max_records: int) -> dict[Any, list[Any]]:
        self._check()
        self._unpark()
        try:
            try:
                polled = self._portions.poll(timeout * 1000, max_records)
            except LOST as error:
                self._positions.recover(error)
                polled = {}
        except KafkaError as error:
            raise translate(error) from error
        return polled

    def _check(self) -> None:
        """What the client does not say: that the topic is gone, or the group has refused us."""
        try:
            self._watch.check()
        except TopicMissing:
            # What may be committed are offsets of a log that is no more: a topic made anew under
            # the name would lose as many records.
            self._listener.lose_all()
            raise
        self._membership.check()

    def _unpark(self) -> None:
        """Let the client give out what it fetched of a partition before that was paused.

        It parks such records, fetches no more of the partition until they are taken, and takes
        them back only while its slot for records in hand is None. A used-up slot is not None:
        partition 0 is paused and parked, partition 1 comes in a rebalance and is used up before
        it is paused too, both are resumed, and 0 lies there for ever.
        """
        fetcher = self._consumer._fetcher  # noqa: SLF001 - there is no public way
        if not fetcher._next_partition_records:  # noqa: SLF001
            fetcher._next_partition_records = None  # noqa: SLF001

    def settled(self) -> bool:
        """Whether this member has its part of the group's partitions, if any."""
        return self._consumer.group_metadata().state is MemberState.STABLE

    def current(self, ref: RecordRef) -> bool:
        """Whether the assignment under which the record was polled still stands; any thread.

        Raises:
            BrokerAway: nobody can know until the group has answered: ask again.
            Fenced, AccessDenied: the group has refused this worker.
        """
        if self._listener.epochs.get(Partition(ref.topic, ref.partition)) != ref.epoch:
            return False
        self._membership.assure()
        return True

    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        """Commit and wait; safe on the revoke thread while the poll thread is parked."""
        if self._watch.gone():  # the client would ask for it until `timeout`
            raise BrokerAway("the input topic is not there")
        try:
            self._consumer.commit(_offsets(offsets), timeout_ms=timeout * 1000)
        except KafkaError as error:
            raise _commit_fault(error) from error

    def commit_async(self, offsets: Mapping[Partition, int], done: CommitDone) -> None:
        """Commit; `done` is called from a later `poll`, on the poll thread."""

        def finished(_: object, answer: object) -> None:
            done(_commit_fault(answer) if isinstance(answer, Exception) else None)

        try:
            self._consumer.commit_async(_offsets(offsets), callback=finished)
        except KafkaError as error:
            done(_commit_fault(error))

    def pause(self) -> None:
        """Fetch nothing from what is assigned; call again after a rebalance."""
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """Fetch again."""
        self._consumer.resume(*self._consumer.paused())

    def connected(self) -> bool:
        """Whether any broker connection is up."""
        metrics = self._consumer.metrics() or {}
        return bool(metrics.get("consumer-metrics", {}).get("connection-count", 1))

    def end_offset(self, partition: Partition) -> int | None:
        """The partition's end as the last fetch told it."""
        try:
            end: int | None = self._consumer.highwater(TopicPartition(*partition))
        except IllegalStateError:  # it was revoked a moment ago
            return None
        return end

    def stable_end(self, partition: Partition) -> int | None:
        """Offset of the first open transaction, else the end; as the last fetch told it."""
        return self._stable_ends.of(partition)

    def positions(self) -> dict[Partition, int]:
        """Offset of the next record that `poll` returns, of each partition where it is known.

        Between two polls: what lies before it was returned, or is no record for us (a transaction's
        marker, an aborted record). The client moves it in `poll` alone, by what that returns: not by
        what it has fetched beyond `max_records`, nor by what it parked when the partition was paused.
        """
        known = self._consumer._subscription.all_consumed_offsets()  # noqa: SLF001 - `position` asks the broker
        epochs = self._listener.epochs
        return {Partition(*tp): at.offset for tp, at in known.items() if Partition(*tp) in epochs}

    def group_metadata(self) -> Any:
        """A snapshot of the membership, for transactions; safe on any thread."""
        return self._consumer.group_metadata()

    def close(self, timeout: float) -> None:
        """Leave the group. A rebalance that is under way is not waited for beyond `timeout`."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=timeout * 1000)
        except KafkaError as error:
            raise translate(error) from error
        finally:
            self._listener.close()


def _consumer_options(settings: Settings) -> dict[str, Any]:
    kafka = settings.kafka
    return {
        "group_id": kafka.group_id,
        "group_instance_id": kafka.group_instance_id,
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "enable_auto_commit": False,
        "auto_offset_reset": "none",  # `positions` decides
        # Records of aborted transactions are no records; and only a read_committed consumer waits
        # for stable offsets when it takes a partition over in exactly-once mode.
        "isolation_level": "read_committed",
        "allow_auto_create_topics": False,
        "session_timeout_ms": int(kafka.session_timeout * 1000),
        # A member learns of a rebalance from its heartbeat: the others wait for it that long.
        "heartbeat_interval_ms": int(min(1.0, kafka.session_timeout / 3) * 1000),
        "max_poll_interval_ms": int(kafka.max_poll_interval * 1000),
        "fetch_max_wait_ms": 100,
        "max_partition_fetch_bytes": kafka.max_partition_fetch_bytes,
    }


def _commit_fault(error: Exception) -> StreamlabelError:
    """A coordinator that has just started may not know a topic yet: that passes."""
    cause = translate(error)
    return BrokerAway(str(cause)) if isinstance(cause, TopicMissing) else cause


def _offsets(offsets: Mapping[Partition, int]) -> dict[Any, Any]:
    return {TopicPartition(*p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()}
