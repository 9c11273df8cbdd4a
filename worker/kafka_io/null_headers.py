"""Writes records into batches, with null header values, in half of the library's time.

Owns: the stand-in for null; the library's batch builder.
Thread: publish calls `replace_nulls`; the builder runs on any thread that sends.
Must not import: any other module of the worker.

The protocol has null header values and the library's builder can write them, but `send` accepts
only bytes and measures them. So a null is passed as an object that looks like empty bytes.

The library writes a record byte by byte. This builder joins its fields, and takes the bytes of
small numbers from a table. A test compares its batches with those of the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from worker.kafka_io.internals import (
    DefaultRecordBatchBuilder,
    DefaultRecordMetadata,
    encode_varint,
    write_batches_with,
)


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
    """The library's builder with a faster `append`, which leaves out its checks of types."""

    _first_timestamp: int | None
    _max_timestamp: int
    _buffer: bytearray

    def append(
        self,
        offset: int,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
    ) -> Any:
        """Append a record; return its metadata, or None if the batch is full."""
        if timestamp is None:  # the library takes the present time
            restored = [(name, None if item is _NULL else item) for name, item in headers]
            return super().append(offset, timestamp, key, value, restored)
        first = self._first_timestamp
        fields = [_ATTRIBUTES, _varint(0 if first is None else timestamp - first), _varint(offset)]
        fields += (_NONE,) if key is None else (_varint(len(key)), key)
        fields += (_NONE,) if value is None else (_varint(len(value)), value)
        fields.append(_varint(len(headers)))
        for name, content in headers:
            encoded = name.encode()
            fields += (_varint(len(encoded)), encoded)
            fields += (_NONE,) if content is _NULL else (_varint(len(content)), content)
        record = b"".join(fields)
        length = _varint(len(record))
        size = len(length) + len(record)
        if first is not None and len(self._buffer) + size > self._batch_size:
            return None
        if first is None:
            self._first_timestamp = self._max_timestamp = timestamp
        elif timestamp > self._max_timestamp:
            self._max_timestamp = timestamp
        self._num_records += 1
        self._last_offset = offset
        self._buffer += length
        self._buffer += record
        return DefaultRecordMetadata(offset, size, timestamp)


def _encoded(number: int) -> bytes:
    encoded = bytearray()
    encode_varint(number, encoded.append)
    return bytes(encoded)


# Most lengths, offsets and distances between timestamps are small.
_VARINTS: Final = [_encoded(number) for number in range(4_096)]
_NONE: Final = _encoded(-1)
_ATTRIBUTES: Final = b"\x00"


def _varint(number: int) -> bytes:
    return _VARINTS[number] if 0 <= number < len(_VARINTS) else _encoded(number)
