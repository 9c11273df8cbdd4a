"""Records in, offsets out: the consumer and its rebalances.

The poll thread owns `KafkaSource`. Only the listener at the end of this file runs elsewhere: on
the client's IO thread and on the revoke thread, as its comment walks through. Translates the
client's exceptions; imports no inference and no runtime.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import IllegalStateError, KafkaError
from kafka.future import Future
from kafka.structs import MemberState

from worker.clock import Clock
from worker.core.records import Partition, RawRecord, RecordRef
from worker.errors import BrokerAway, StreamlabelError, TopicMissing
from worker.kafka_io.connection import connect, translate
from worker.settings import Settings

_SHORT = 0.01  # seconds: a wait that is slept
_GLANCE = 0.001  # seconds: what is there already
_JOIN = 0.5  # seconds: a wait inside the client while the group settles

CommitDone = Callable[[StreamlabelError | None], None]


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
    def position(self, partition: Partition) -> int | None: ...
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
        # The loop that runs the listener does not see that another thread completed a future.
        wake = self._consumer._net.wakeup  # noqa: SLF001 - there is no public way
        self._listener = _Listener(handler, wake)
        try:
            self._consumer.subscribe([settings.input.topic], listener=self._listener)
            # A member that is elected leader before it knows the topic's partitions assigns
            # nobody anything, and the library does not always notice: know them first.
            self._consumer.partitions_for_topic(settings.input.topic)
        except KafkaError as error:
            self._consumer.close(autocommit=False, timeout_ms=1000)
            raise translate(error) from error

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
            _raw(record, epochs[Partition(*tp)], now, now_ms)
            for tp, records in polled.items()
            if Partition(*tp) in epochs
            for record in records
        ]

    def _look(self, timeout: float, max_records: int) -> dict[Any, list[Any]]:
        self._unpark()
        try:
            polled: dict[Any, list[Any]] = self._consumer.poll(
                timeout_ms=timeout * 1000, max_records=max_records
            )
        except KafkaError as error:
            raise translate(error) from error
        return polled

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
        """Whether the assignment under which the record was polled still stands; any thread."""
        return self._listener.epochs.get(Partition(ref.topic, ref.partition)) == ref.epoch

    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        """Commit and wait; safe on the revoke thread while the poll thread is parked."""
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

    def position(self, partition: Partition) -> int | None:
        """Offset of the next record to poll, None while it is not known."""
        try:
            next_one: int | None = self._consumer.position(TopicPartition(*partition), timeout_ms=0)
        except KafkaError:
            return None
        return next_one

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
        "auto_offset_reset": settings.input.start,
        # Records of aborted transactions are no records; and only a read_committed consumer waits
        # for stable offsets when it takes a partition over in exactly-once mode.
        "isolation_level": "read_committed",
        "allow_auto_create_topics": False,
        "session_timeout_ms": int(kafka.session_timeout * 1000),
        # A member learns of a rebalance from its heartbeat: the others wait for it that long.
        "heartbeat_interval_ms": int(min(1.0, kafka.session_timeout / 3) * 1000),
        "max_poll_interval_ms": int(kafka.max_poll_interval * 1000),
        "fetch_max_wait_ms": 100,
    }


def _raw(record: Any, epoch: int, now: float, now_ms: int) -> RawRecord:
    # Records without a timestamp (-1, or None from very old producers) count as made just now.
    made_at = record.timestamp if record.timestamp is not None and record.timestamp >= 0 else now_ms
    headers = tuple((name, value or b"") for name, value in record.headers or ())
    ref = RecordRef(record.topic, record.partition, record.offset, epoch)
    return RawRecord(ref, made_at, record.key, record.value, headers, now)


def _commit_fault(error: Exception) -> StreamlabelError:
    """A coordinator that has just started may not know a topic yet: that passes."""
    cause = translate(error)
    return BrokerAway(str(cause)) if isinstance(cause, TopicMissing) else cause


def _offsets(offsets: Mapping[Partition, int]) -> dict[Any, Any]:
    return {TopicPartition(*p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()}


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Hands rebalances to the runtime without blocking the client's IO thread.

    The race that is not there, walked through: the client runs these coroutines on its IO
    thread, but starts them only from inside `poll()` or `close()`, and these do not return
    before the coroutine ends. So while one runs, the poll thread is parked and touches nothing.
    `on_partitions_revoked` may take seconds (it drains): it gives the poll thread's duties to the
    revoke thread and awaits it, and meanwhile the IO thread goes on sending heartbeats. When the
    await ends, the revoke thread has stopped touching anything, and the poll thread wakes up.
    """

    def __init__(self, handler: RebalanceHandler, wake: Callable[[], None]) -> None:
        self._handler = handler
        self._wake = wake
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
            self._handler.on_revoked(gone)
            self._forget(gone)
            drained.success(None)
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            drained.failure(error)
        self._wake()

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        gone = [Partition(*tp) for tp in lost]
        self._forget(gone)
        self._handler.on_lost(gone)

    def _forget(self, gone: list[Partition]) -> None:
        self.epochs = {p: epoch for p, epoch in self.epochs.items() if p not in gone}

    def close(self) -> None:
        self._revoker.shutdown(wait=False)
