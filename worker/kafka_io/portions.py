"""How much a poll gives out at once, and where a batch lies that can't be read.

The thread that polls. The client bounds a poll by records alone, and five hundred records of a
megabyte each are fetched as a few hundred kilobytes where they are compressed. So a poll
is bounded by bytes too; the rest stays packed until the next one. Imports `batches`.

The client asks one partition after the other for records until it has as many as it was asked for.
Once the bytes are spent, `_Enough` stops it: what it has by then is returned, and it raises
`_Enough` at the next poll, which is therefore tried twice.
"""

from __future__ import annotations

import functools
import itertools
import shlex
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError

from worker.kafka_io.record_batch import LARGEST, Batch
from worker.settings import KafkaSettings

_AT_ONCE = 4 * 1024 * 1024  # bytes


class BatchUnreadable(CorruptRecordError):  # type: ignore[misc]
    """A batch that nobody can read.

    Attributes:
        words: where it lies, what is wrong, and how a group goes on past it.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class Portions:
    """Polls a consumer, a bounded number of bytes at a time; one record is always given.

    Args:
        consumer: the library's.
        kafka: the cluster and the group that is told how to go on past what can't be read; None
            where no group reads.
        largest: bytes of a record, at most, that is read whole.
    """

    def __init__(
        self, consumer: Any, kafka: KafkaSettings | None = None, largest: int = LARGEST
    ) -> None:
        self._consumer, self._kafka = consumer, kafka
        self.largest, self.left = largest, _AT_ONCE
        consumer._fetcher.PartitionRecords = functools.partial(_Records, self)  # noqa: SLF001

    def poll(self, timeout_ms: float, max_records: int) -> dict[Any, list[Any]]:
        """As the consumer does.

        Raises:
            BatchUnreadable: names the batch. Nothing behind it is given out.
        """
        while True:
            self.left = _AT_ONCE
            try:
                found: dict[Any, list[Any]] = self._consumer.poll(
                    timeout_ms=timeout_ms, max_records=max_records
                )
            except _Enough:
                continue
            return found

    def unreadable(self, tp: TopicPartition, offsets: range, reason: Exception) -> BatchUnreadable:
        """The fault of a batch that can't be read, from these offsets on."""
        words = (
            f"{tp.topic}[{tp.partition}]: offsets {offsets.start} to {offsets.stop - 1} can't be "
            f"read: {reason}. Restore them from a replica if this broker's copy is damaged"
        )
        if self._kafka is not None:
            words += f". {_way_past(self._kafka, tp, offsets.stop)}"
        return BatchUnreadable(words)


class _Enough(Exception):
    """This poll has given out all that it may."""


class _Records(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records that one fetch brought of one partition."""

    def __init__(
        self, portions: Portions, offset: int, tp: TopicPartition, records: Any, **options: Any
    ) -> None:
        self._portions, self._batches = portions, _Batches(records, portions.largest)
        self._fault: BatchUnreadable | None = None
        super().__init__(offset, tp, self._batches, **options)

    def take(self, n: int | None = None) -> list[Any]:
        if self._fault:  # the client would ask for the rest of it without end
            raise self._fault
        if self._portions.left <= 0:
            raise _Enough
        taken: list[Any] = []
        left = self._portions.left
        try:
            for record in itertools.islice(self.record_iterator, n):
                taken.append(record)
                left -= record.serialized_value_size + record.serialized_key_size
                left -= record.serialized_header_size  # each is -1 where there is nothing
                if left <= 0:
                    break
        except (CorruptRecordError, UnsupportedCodecError) as error:
            offsets = self._batches.left_from(self.next_fetch_offset)
            self._fault = self._portions.unreadable(self.topic_partition, offsets, error)
            if not taken:
                raise self._fault from error
        self._portions.left = left
        return taken


class _Batches:
    """The client's batches, each told how large a record may be."""

    def __init__(self, records: Any, largest: int) -> None:
        self._records, self._largest = records, largest
        self._last: Any = None

    def next_batch(self) -> Any:
        self._last = None
        self._last = batch = self._records.next_batch()
        if isinstance(batch, Batch):
            batch.largest = self._largest
        return batch

    def left_from(self, position: int) -> range:
        """The offsets of the last batch from `position` on; that one alone where there is none."""
        first = max(position, getattr(self._last, "base_offset", position))
        return range(first, getattr(self._last, "last_offset", first) + 1)


def _way_past(kafka: KafkaSettings, tp: TopicPartition, offset: int) -> str:
    cluster = ("--bootstrap-servers", kafka.bootstrap_servers)
    group = ("--group-id", kafka.group_id, "--partition", f"{tp.topic}:{tp.partition}")
    reset = ("reset-offsets", *group, "--to-offset", str(offset))
    command = shlex.join(["python", "-P", "-m", "kafka.admin", *cluster, "groups", *reset])
    return (
        "To go on without these records, stop the group's workers and run (with the login that "
        f"your cluster asks for)\n  {command}"
    )
