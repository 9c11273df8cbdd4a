"""What `demo` and `bench` need of a broker: topics, a producer of the sample, a reader of results.

Runs on: one thread, which owns all three; acknowledgements come on the client's own thread and are
only put into a deque there. Translates the client's exceptions; imports no other room but core.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from worker.clock import Clock
from worker.core.records import RawRecord, RecordRef
from worker.kafka_io.connection import connect
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings

_CLOSE_S: Final = 2.0
# A fetch leaves out partitions whose records are not taken yet. One that is left with idle ones
# alone (the dead letters') holds the next back for so long: with the client's 500 ms, a reader saw
# every twentieth of 500 records a second half a second late.
_FETCH_WAIT_MS: Final = 20


class Acknowledged(NamedTuple):
    """Where the broker put the record that was sent with `tag`."""

    tag: int
    partition: int
    offset: int


@contextlib.contextmanager
def sample_topics(
    kafka: KafkaSettings, partitions: Mapping[str, int], group: str, *, keep: bool
) -> Iterator[None]:
    """Topics that are made on entering and, unless `keep`, deleted with their group afterwards."""
    try:
        with _administration(kafka) as admin:
            admin.create_topics({name: {"num_partitions": n} for name, n in partitions.items()})
            admin.wait_for_topics(list(partitions))
        yield
    finally:
        if not keep:
            _delete(kafka, list(partitions), group)


class SampleProducer:
    """Sends records to one topic; acks=all, keyed partitions, `linger_ms` waited for company."""

    def __init__(self, kafka: KafkaSettings, topic: str, linger_ms: int = 5) -> None:
        self._topic = topic
        self._arrived: deque[Acknowledged] = deque()
        self._failed: deque[Exception] = deque()
        self._producer = connect(KafkaProducer, kafka, acks="all", linger_ms=linger_ms)

    def send(self, tag: int, key: bytes, value: bytes | None, timestamp_ms: int) -> None:
        """Hand one record over; `acknowledged` tells later where it landed."""
        with _translated():
            future = self._producer.send(
                self._topic, key=key, value=value, timestamp_ms=timestamp_ms
            )
        future.add_callback(
            lambda meta: self._arrived.append(Acknowledged(tag, meta.partition, meta.offset))
        )
        future.add_errback(self._failed.append)

    def acknowledged(self) -> Iterator[Acknowledged]:
        """What the broker has acknowledged since the last call. Raises where it refused one."""
        if self._failed:
            with _translated():
                raise self._failed.popleft()
        while self._arrived:
            yield self._arrived.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._producer.close(timeout=_CLOSE_S)


class Tail:
    """Reads topics from their beginning, as a reader who trusts committed records alone."""

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str], clock: Clock) -> None:
        self._clock = clock
        self._consumer = connect(
            KafkaConsumer,
            kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
        )
        with _translated():
            everything = [
                TopicPartition(topic, partition)
                for topic in topics
                for partition in self._consumer.partitions_for_topic(topic) or ()
            ]
            self._consumer.assign(everything)

    def read(self) -> list[RawRecord]:
        """What has arrived since the last call; never waits.

        The embedded broker answers an empty fetch at once, so a poll that waits would spin: the
        caller sleeps between two calls instead.
        """
        with _translated():
            polled = self._consumer.poll(timeout_ms=0)
        now = self._clock.monotonic()
        return [_raw(record, now) for records in polled.values() for record in records]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._consumer.close(timeout_ms=int(_CLOSE_S * 1000))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise translate(error) from error


@contextlib.contextmanager
def _administration(kafka: KafkaSettings) -> Iterator[Any]:
    admin = connect(KafkaAdminClient, kafka)
    try:
        with _translated():
            yield admin
    finally:
        admin.close()


def _delete(kafka: KafkaSettings, topics: list[str], group: str) -> None:
    # A broker that went away meanwhile is no reason to hide how the demo itself ended.
    with contextlib.suppress(Exception), _administration(kafka) as admin:
        admin.delete_topics(topics)
        admin.delete_groups([group])


def _raw(record: Any, now: float) -> RawRecord:
    return RawRecord(
        ref=RecordRef(record.topic, record.partition, record.offset, epoch=0),
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=record.headers,
        polled_at=now,
    )
