"""Header values that are null, on their way out.

The publish thread calls `sendable`; the client's builder is used by any thread that sends. The
protocol knows null values and the client's builder writes them, but `send` takes bytes alone, and
measures them. So a null goes in as an object that looks like empty bytes. Imports none of our modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatchBuilder


class _Null(bytes):
    __slots__ = ()


_NULL = _Null()


def write_nulls() -> None:
    """Have all producers of this process write `_NULL` as null; a second call changes nothing."""
    memory_records.DefaultRecordBatchBuilder = _Builder


def sendable(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    """These headers as `KafkaProducer.send` takes them."""
    return [(name, _NULL if value is None else value) for name, value in headers]


class _Builder(DefaultRecordBatchBuilder):  # type: ignore[misc]
    __slots__ = ()

    def append(self, *fields: Any) -> Any:
        *others, headers = fields
        given = [(name, None if value is _NULL else value) for name, value in headers]
        return super().append(*others, given)
