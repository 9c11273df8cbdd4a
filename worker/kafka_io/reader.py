"""Whole topics, read from the first kept record up to a given end.

One thread owns a reader: the library's consumer is not thread-safe. No group and no commits;
partitions are assigned by hand, values are not decoded. Translates the client's exceptions;
imports no inference and no runtime.

An end is an offset, not a record: the last offsets of a partition may be markers of transactions,
aborted records or compacted ones, which no reader is given. So what ends a partition is the
consumer's position, and never a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from kafka import KafkaConsumer, TopicPartition

from worker.clock import Clock, SystemClock
from worker.core.records import Headers
from worker.kafka_io.connection import connect
from worker.kafka_io.portions import Portions
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings

_POLL_MS = 500
_POLL_RECORDS = 5_000


class Seen(NamedTuple):
    """What the audit needs of a record."""

    partition: int
    offset: int
    headers: Headers
    timestamp_ms: int
    value: bytes


class History:
    """Reads topics from their beginning, committed records only; a context manager.

    Args:
        kafka: the cluster.
        patience: seconds without any progress until a read gives up. An open transaction holds
            its partition up for as long as its timeout.
        clock: measures them.

    Attributes:
        unread: after a read, partition -> the position at which it gave up.
    """

    def __init__(
        self, kafka: KafkaSettings, patience: float = 30.0, clock: Clock | None = None
    ) -> None:
        self._patience = patience
        self._clock = clock or SystemClock()
        self.unread: dict[int, int] = {}
        self._consumer = connect(
            KafkaConsumer,
            kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        self._portions = Portions(self._consumer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._consumer.close(autocommit=False, timeout_ms=2000)

    def read(self, topic: str, ends: Mapping[int, int]) -> Iterator[Seen]:
        """Every record below its partition's end, each partition's in order.

        Args:
            topic: the topic.
            ends: partition -> offset to stop at; others are not read.

        Raises:
            BrokerAway, AccessDenied, Fatal: as the client says.
        """
        # A partition that is empty has no progress to wait for; its end may lie at its start.
        left = {TopicPartition(topic, number): end for number, end in ends.items() if end > 0}
        self.unread = {}
        self._ask("assign", list(left))
        if left:
            self._ask("resume", *left)  # a second read of one topic finds them paused
            self._ask("seek_to_beginning", *left)
            yield from self._read(left)

    def _read(self, left: dict[TopicPartition, int]) -> Iterator[Seen]:
        positions: dict[TopicPartition, int | None] = {}
        moved_at = self._clock.monotonic()
        while left:
            for tp, records in self._poll().items():
                end = left.get(tp, 0)
                for record in records:
                    if record.offset < end:
                        yield Seen(
                            tp.partition,
                            record.offset,
                            record.headers,
                            record.timestamp,
                            record.value or b"",
                        )
            now = {tp: self._ask("position", tp, timeout_ms=_POLL_MS) for tp in left}
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
                self._ask("pause", tp)

    def _poll(self) -> dict[Any, list[Any]]:
        try:
            return self._portions.poll(_POLL_MS, _POLL_RECORDS)
        except Exception as error:
            raise translate(error) from error

    def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._consumer, method)(*args, **options)
        except Exception as error:
            raise translate(error) from error
