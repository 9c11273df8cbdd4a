"""Bounds a poll by bytes, and names a batch that can't be read.

Owns: the class of a fetch's records in one consumer.
Thread: the one that polls.
Must not import: inference, runtime.

The client bounds a poll by records only. Five hundred records of a megabyte each may be fetched as
a few hundred kilobytes if they are compressed. So a poll is also bounded by bytes; the rest stays
packed until the next poll.

The client asks one partition after another for records until it has as many as requested. Once the
bytes are used up, `_ByteLimitReached` stops it. The client then returns what it has, and raises
the exception at the next poll, which is therefore tried twice.
"""

from __future__ import annotations

import functools
import itertools
import shlex
from typing import Any

from kafka import TopicPartition
from kafka.errors import CorruptRecordError, UnsupportedCodecError

from worker.kafka_io.internals import Fetcher, fetcher_of
from worker.kafka_io.record_batch import MAX_RECORD_BYTES, StreamedBatch
from worker.settings import KafkaSettings

_BYTES_PER_POLL = 4 * 1024 * 1024


class BatchUnreadable(CorruptRecordError):  # type: ignore[misc]
    """A batch that can't be read.

    Attributes:
        text: its topic, partition and offsets, the fault, and how the group can skip it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class BoundedPoller:
    """Polls a consumer for a bounded number of bytes, but at least one record.

    Args:
        consumer: the library's.
        kafka: the cluster and group, for the command that skips an unreadable batch; None without a
            group.
        max_record_bytes: a larger record is cut.

    Attributes:
        bytes_left: of the current poll.
    """

    def __init__(
        self,
        consumer: Any,
        kafka: KafkaSettings | None = None,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._consumer, self._kafka = consumer, kafka
        self.max_record_bytes, self.bytes_left = max_record_bytes, _BYTES_PER_POLL
        fetcher_of(consumer).PartitionRecords = functools.partial(_PartitionRecords, self)

    def poll(self, timeout_ms: float, max_records: int) -> dict[Any, list[Any]]:
        """Poll as the consumer does.

        Raises:
            BatchUnreadable: names the batch; no record after it is returned.
        """
        while True:
            self.bytes_left = _BYTES_PER_POLL
            try:
                records: dict[Any, list[Any]] = self._consumer.poll(
                    timeout_ms=timeout_ms, max_records=max_records
                )
            except _ByteLimitReached:
                continue
            return records

    def unreadable(self, tp: TopicPartition, offsets: range, reason: Exception) -> BatchUnreadable:
        """Return the error for a batch that can't be read at these offsets."""
        text = (
            f"{tp.topic}[{tp.partition}]: offsets {offsets.start} to {offsets.stop - 1} can't be "
            f"read: {reason}. Restore them from a replica if this broker's copy is damaged"
        )
        if self._kafka is not None:
            text += f". {_how_to_skip(self._kafka, tp, offsets.stop)}"
        return BatchUnreadable(text)


class _ByteLimitReached(Exception):
    """This poll has returned as many bytes as it may."""


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition from one fetch."""

    def __init__(
        self,
        poller: BoundedPoller,
        offset: int,
        tp: TopicPartition,
        records: Any,
        **options: Any,
    ) -> None:
        self._poller = poller
        self._batches = _Batches(records, poller.max_record_bytes)
        self._fault: BatchUnreadable | None = None
        super().__init__(offset, tp, self._batches, **options)

    def take(self, n: int | None = None) -> list[Any]:
        if self._fault:  # the client would ask for the rest of the batch without end
            raise self._fault
        if self._poller.bytes_left <= 0:
            raise _ByteLimitReached
        taken: list[Any] = []
        left = self._poller.bytes_left
        try:
            for record in itertools.islice(self.record_iterator, n):
                taken.append(record)
                left -= record.serialized_value_size + record.serialized_key_size
                left -= record.serialized_header_size  # each size is -1 for a missing field
                if left <= 0:
                    break
        except (CorruptRecordError, UnsupportedCodecError) as error:
            offsets = self._batches.unread_offsets(self.next_fetch_offset)
            self._fault = self._poller.unreadable(self.topic_partition, offsets, error)
            if not taken:
                raise self._fault from error
        self._poller.bytes_left = left
        return taken


class _Batches:
    """The client's batches, each with the limit of a record's size."""

    def __init__(self, records: Any, max_record_bytes: int) -> None:
        self._records, self._max_record_bytes = records, max_record_bytes
        self._last: Any = None

    def next_batch(self) -> Any:
        self._last = None
        self._last = batch = self._records.next_batch()
        if isinstance(batch, StreamedBatch):
            batch.max_record_bytes = self._max_record_bytes
        return batch

    def unread_offsets(self, position: int) -> range:
        """Return the last batch's offsets from `position` on; only `position` without a batch."""
        first = max(position, getattr(self._last, "base_offset", position))
        return range(first, getattr(self._last, "last_offset", first) + 1)


def _how_to_skip(kafka: KafkaSettings, tp: TopicPartition, offset: int) -> str:
    cluster = ("--bootstrap-servers", kafka.bootstrap_servers)
    group = ("--group-id", kafka.group_id, "--partition", f"{tp.topic}:{tp.partition}")
    reset = ("reset-offsets", *group, "--to-offset", str(offset))
    command = shlex.join(["python", "-P", "-m", "kafka.admin", *cluster, "groups", *reset])
    return (
        "To skip these records, stop the group's workers and run (with the login that your cluster "
        f"requires)\n  {command}"
    )
