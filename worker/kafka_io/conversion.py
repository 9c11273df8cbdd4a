"""Converts records and offsets between the library's types and the worker's.

Owns: nothing.
Thread: any.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition

from worker.core.records import Partition, RawRecord, RecordRef
from worker.kafka_io.leader_epochs import unknown_epoch
from worker.kafka_io.record_batch import CutHeaders


def raw_record(record: Any, epoch: int, now: float, now_ms: int) -> RawRecord:
    """Convert a record that `poll` returned.

    Args:
        record: the library's.
        epoch: of the assignment under which it was polled.
        now: seconds of the monotonic clock.
        now_ms: wall clock, ms; the timestamp of a record that has none.
    """
    # The timestamp is -1 where there is none, and None from very old producers.
    has_timestamp = record.timestamp is not None and record.timestamp >= 0
    timestamp_ms = record.timestamp if has_timestamp else now_ms
    ref = RecordRef(record.topic, record.partition, record.offset, epoch)
    cut = record.headers.cut if isinstance(record.headers, CutHeaders) else None
    headers = tuple(record.headers or ())
    return RawRecord(ref, timestamp_ms, record.key, record.value, headers, now, cut)


def no_note(partition: Partition) -> str:  # noqa: ARG001
    """Return no metadata for a committed offset."""
    return ""


def commit_request(
    offsets: Mapping[Partition, int],
    note: Callable[[Partition], str] = no_note,
    leader_epoch: Callable[[Partition, int], int] = unknown_epoch,
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Convert offsets to commit.

    Args:
        offsets: of the next records.
        note: returns the metadata of a partition's offset.
        leader_epoch: returns the epoch of the leader that wrote a record.
    """
    return {
        TopicPartition(*p): OffsetAndMetadata(at, note(p), leader_epoch(p, at - 1))
        for p, at in offsets.items()
    }
