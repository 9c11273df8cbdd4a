"""Writes null header values.

Owns: the stand-in for null; the library's batch builder.
Thread: publish calls `replace_nulls`; the builder runs on any thread that sends.
Must not import: any other module of the worker.

The protocol has null header values and the library's builder can write them, but `send` accepts
only bytes and measures them. So a null is passed as an object that looks like empty bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from worker.kafka_io.internals import DefaultRecordBatchBuilder, write_batches_with


class _Null(bytes):
    __slots__ = ()


_NULL = _Null()


def patch_batch_builder() -> None:
    """Have all producers of this process write `_NULL` as null; idempotent."""
    write_batches_with(_Builder)


def replace_nulls(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    """Return the headers as `KafkaProducer.send` accepts them."""
    return [(name, _NULL if value is None else value) for name, value in headers]


class _Builder(DefaultRecordBatchBuilder):  # type: ignore[misc]
    __slots__ = ()

    def append(self, *fields: Any) -> Any:
        *others, headers = fields
        restored = [(name, None if value is _NULL else value) for name, value in headers]
        return super().append(*others, restored)
