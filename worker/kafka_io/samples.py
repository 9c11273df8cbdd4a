"""Provides `demo` and `bench` with topics, a producer of samples and a reader of results.

Owns: the sample topics, a producer, a consumer without a group.
Thread: one, which owns all three. Acknowledgements arrive on the client's thread, which only
appends them to a deque.
Must not import: inference, runtime.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from worker.clock import Clock
from worker.core.records import RawRecord, RecordRef
from worker.kafka_io.connection import Closeable, connect, connect_reader
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings

_CLOSE_S: Final = 2.0
# A fetch omits partitions whose records are not consumed yet. If only idle partitions remain (those
# of the dead letters), it delays the next fetch for this long: with the client's 500 ms, a reader
# got one in twenty of 500 records a second half a second late.
_FETCH_WAIT_MS: Final = 20


class Acknowledged(NamedTuple):
    """The partition and offset of the record that was sent with `tag`."""

    tag: int
    partition: int
    offset: int


@contextlib.contextmanager
def sample_topics(
    kafka: KafkaSettings, partitions: Mapping[str, int], group: str, *, keep: bool
) -> Iterator[None]:
    """Create topics; on leaving, delete them and their group unless `keep`."""
    try:
        with _administration(kafka) as admin:
            admin.create_topics({name: {"num_partitions": n} for name, n in partitions.items()})
            admin.wait_for_topics(list(partitions))
        yield
    finally:
        if not keep:
            _delete(kafka, list(partitions), group)


class SampleProducer(Closeable):
    """Sends records to one topic, with acks=all and partitions by key."""

    def __init__(self, kafka: KafkaSettings, topic: str, linger_ms: int = 5) -> None:
        self._topic = topic
        self._acknowledged: deque[Acknowledged] = deque()
        self._failed: deque[Exception] = deque()
        self._producer = connect(KafkaProducer, kafka, acks="all", linger_ms=linger_ms)

    def send(self, tag: int, key: bytes, value: bytes | None, timestamp_ms: int) -> None:
        """Send one record; `acknowledged` yields its partition and offset later."""
        with _translated():
            future = self._producer.send(
                self._topic, key=key, value=value, timestamp_ms=timestamp_ms
            )
        future.add_callback(
            lambda meta: self._acknowledged.append(Acknowledged(tag, meta.partition, meta.offset))
        )
        future.add_errback(self._failed.append)

    def acknowledged(self) -> Iterator[Acknowledged]:
        """Yield what the broker has acknowledged since the last call; raise what it refused."""
        if self._failed:
            with _translated():
                raise self._failed.popleft()
        while self._acknowledged:
            yield self._acknowledged.popleft()

    def close(self) -> None:
        """Close the connections."""
        self._producer.close(timeout=_CLOSE_S)


class Tail(Closeable):
    """Reads committed records of topics from the beginning, and then as they arrive."""

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str], clock: Clock) -> None:
        self._clock = clock
        self._consumer = connect_reader(kafka, fetch_max_wait_ms=_FETCH_WAIT_MS)
        with _translated():
            partitions = [
                TopicPartition(topic, partition)
                for topic in topics
                for partition in self._consumer.partitions_for_topic(topic) or ()
            ]
            self._consumer.assign(partitions)

    def read(self) -> list[RawRecord]:
        """Return the records that have arrived since the last call; never waits.

        The embedded broker answers an empty fetch at once, so a poll with a timeout would spin. The
        caller sleeps between two calls instead.
        """
        with _translated():
            polled = self._consumer.poll(timeout_ms=0)
        now = self._clock.monotonic()
        return [_raw(record, now) for records in polled.values() for record in records]

    def close(self) -> None:
        """Close the connections."""
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
    # An error here must not hide how the demo itself ended.
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
