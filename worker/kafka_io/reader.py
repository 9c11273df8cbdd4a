"""Reads whole topics, or from given offsets on, up to a given end.

Owns: a consumer without a group; it commits nothing.
Thread: the one that made the reader: the library's consumer is not thread-safe.
Must not import: inference, runtime.

An end is an offset, not a record: the last offsets of a partition may be transaction markers,
aborted records or compacted ones, which no reader gets. So a partition is finished when the
consumer's position reaches the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kafka import TopicPartition

from worker.clock import Clock, SystemClock
from worker.core.records import Headers
from worker.kafka_io.bounded_poll import BoundedPoller
from worker.kafka_io.connection import Closeable, connect_reader
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings

PATIENCE = 30.0  # seconds
_POLL_MS = 500
_POLL_RECORDS = 5_000


class AuditRecord(NamedTuple):
    """The parts of a record that the audit uses."""

    partition: int
    offset: int
    headers: Headers
    timestamp_ms: int
    value: bytes


class TopicReader(Closeable):
    """Reads committed records of topics; a context manager.

    Args:
        kafka: the cluster.
        patience: seconds without progress until a read gives up. An open transaction stops its
            partition for as long as its timeout.
        clock: measures the time without progress.

    Attributes:
        unread: after a read, partition -> the position at which it gave up.
    """

    def __init__(
        self, kafka: KafkaSettings, patience: float = PATIENCE, clock: Clock | None = None
    ) -> None:
        self._patience = patience
        self._clock = clock or SystemClock()
        self.unread: dict[int, int] = {}
        self._consumer = connect_reader(kafka, max_partition_fetch_bytes=4 * 1024 * 1024)
        self._poller = BoundedPoller(self._consumer)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close(autocommit=False, timeout_ms=2000)

    def read(
        self, topic: str, ends: Mapping[int, int], starts: Mapping[int, int] | None = None
    ) -> Iterator[AuditRecord]:
        """Yield every record below its partition's end, in offset order by partition.

        Args:
            topic: the topic.
            ends: partition -> the offset to stop at; other partitions are not read.
            starts: partition -> the offset to begin at; others begin with their first record.

        Raises:
            BrokerAway, AccessDenied, Fatal: the client's exception, translated.
        """
        # An empty partition makes no progress: it has reached its end already.
        begin = starts or {}
        left = {
            TopicPartition(topic, number): end
            for number, end in ends.items()
            if end > begin.get(number, 0)
        }
        self.unread = {}
        self._call("assign", list(left))
        if left:
            self._call("resume", *left)  # an earlier read of the topic has paused them
            self._call("seek_to_beginning", *left)
            for tp in left:
                if tp.partition in begin:
                    self._call("seek", tp, begin[tp.partition])
            yield from self._read(left)

    def _read(self, left: dict[TopicPartition, int]) -> Iterator[AuditRecord]:
        positions: dict[TopicPartition, int | None] = {}
        moved_at = self._clock.monotonic()
        while left:
            for tp, records in self._poll().items():
                end = left.get(tp, 0)
                for record in records:
                    if record.offset < end:
                        yield AuditRecord(
                            tp.partition,
                            record.offset,
                            record.headers,
                            record.timestamp,
                            record.value or b"",
                        )
            now = {tp: self._call("position", tp, timeout_ms=_POLL_MS) for tp in left}
            if now != positions:
                positions, moved_at = now, self._clock.monotonic()
            elif self._clock.monotonic() - moved_at > self._patience:
                self.unread = {tp.partition: now[tp] or 0 for tp in left}
                return
            self._drop_finished(left, now)

    def _drop_finished(
        self, left: dict[TopicPartition, int], positions: Mapping[TopicPartition, int | None]
    ) -> None:
        for tp, position in positions.items():
            if position is not None and position >= left[tp]:
                del left[tp]
                self._call("pause", tp)

    def _poll(self) -> dict[Any, list[Any]]:
        try:
            return self._poller.poll(_POLL_MS, _POLL_RECORDS)
        except Exception as error:
            raise translate(error) from error

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._consumer, method)(*args, **options)
        except Exception as error:
            raise translate(error) from error
