"""The client's records as the worker knows them. Any thread; imports core."""

from __future__ import annotations

from typing import Any

from worker.core.records import RawRecord, RecordRef
from worker.kafka_io.record_batch import CutHeaders


def raw_record(record: Any, epoch: int, now: float, now_ms: int) -> RawRecord:
    """A record of `poll`.

    Args:
        record: the client's.
        epoch: of the assignment under which it was polled.
        now: seconds of the monotonic clock.
        now_ms: wall clock, ms.
    """
    # Records without a timestamp (-1, or None from very old producers) count as made just now.
    made_at = record.timestamp if record.timestamp is not None and record.timestamp >= 0 else now_ms
    ref = RecordRef(record.topic, record.partition, record.offset, epoch)
    cut = record.headers.cut if isinstance(record.headers, CutHeaders) else None
    headers = tuple(record.headers or ())
    return RawRecord(ref, made_at, record.key, record.value, headers, now, cut)
