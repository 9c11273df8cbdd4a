"""Reads record batches that the library can't.

Owns: the library's class of batches.
Thread: any that polls.
Must not import: inference, runtime.

Two kinds of batches are affected.

*Header names that are not UTF-8.* The protocol requires UTF-8, but no broker checks it, and some
producers write other encodings. The library treats such a record as corrupt, permanently: its
partition would stop.

*Compressed batches.* The library unpacks a batch whole. This class unpacks it as it is read, so a
batch may hold more than fits into memory. Memory holds one record at a time, and of a record of
more than `max_record_bytes` only its beginning. Walked through, for a record of 300 MB in a batch
of 292 kB:

* Its length comes first, so it is known to be too large before it is unpacked.
* Its offset, timestamp and key, the beginning of its value, and its headers are kept. The bytes in
  between are unpacked and dropped, chunk by chunk.
* A small record made of these parts replaces it in the buffer, and the library reads that as any
  other. Its headers are `CutHeaders`, which say what is missing.
* The next record begins where the length said, and is read as usual.
"""

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

from kafka.errors import CorruptRecordError

from worker.core.records import Cut
from worker.kafka_io.decompression import DecompressedStream, decompress, open_stream
from worker.kafka_io.internals import (
    DefaultRecordBatch,
    decode_legacy_batches_with,
    decode_varint,
    encode_varint,
    read_batches_with,
    set_headers,
)

MAX_RECORD_BYTES = 64_000_000  # a larger record is cut, unless a consumer has another limit

_CHUNK = 1024 * 1024  # bytes unpacked at a time; most batches are smaller
_KEPT_BYTES = 1_000_000  # of the value, the key and the headers of a record that is cut
_MAX_VARINT_BYTES = 10


def patch_record_batches() -> None:
    """Have all consumers of this process read such batches; idempotent."""
    read_batches_with(StreamedBatch)
    decode_legacy_batches_with(
        {
            "gzip_decode": functools.partial(_decompress_legacy, DefaultRecordBatch.CODEC_GZIP),
            "snappy_decode": functools.partial(_decompress_legacy, DefaultRecordBatch.CODEC_SNAPPY),
            "lz4_decode": functools.partial(_decompress_legacy, DefaultRecordBatch.CODEC_LZ4),
        }
    )


class CutHeaders(list[tuple[str, bytes | None]]):
    """The headers of a record that was cut."""

    def __init__(self, headers: list[tuple[str, bytes | None]], cut: Cut) -> None:
        super().__init__(headers)
        self.cut = cut


class StreamedBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch that is unpacked as it is read.

    Attributes:
        max_record_bytes: a larger record is cut.
    """

    _buffer: bytearray
    _pos: int
    _decompressed: bool
    max_record_bytes = MAX_RECORD_BYTES
    _stream: DecompressedStream | None = None  # the part that is not unpacked yet
    _dropped = 0  # bytes that were read and are no longer in the buffer

    def _maybe_uncompress(self) -> None:
        if self.compression_type != self.CODEC_NONE and not self._decompressed:
            self._assert_has_codec(self.compression_type)
            packed = bytes(memoryview(self._buffer)[self._pos :])
            self._stream = open_stream(self.compression_type, packed, self.max_record_bytes)
            self._buffer, self._pos = bytearray(), 0
            self._fill(_CHUNK)
        self._decompressed = True

    def __next__(self) -> Any:
        cut = None if self._stream is None else self._fill_next_record()
        record = super().__next__()
        if cut is not None:
            set_headers(record, CutHeaders(record.headers, cut))
        return record

    def _read_msg(self, *args: Any) -> Any:
        try:
            return super()._read_msg(*args)
        except UnicodeDecodeError:
            # The library sets the position when a record is complete, so it can be read again. The
            # rest of the batch is read the slow way too, as such records rarely come alone.
            self._buffer = _LenientBytes(self._buffer)
            return super()._read_msg(*args)

    # -- unpacking -------------------------------------------------------------------------------

    def _fill_next_record(self) -> Cut | None:
        """Unpack the next record, and cut it if it is too large."""
        self._fill(_MAX_VARINT_BYTES)
        if self._next_record_index >= self._num_records:
            return None
        try:
            length, start = decode_varint(self._buffer, self._pos)
            if length > self.max_record_bytes:
                return self._cut(length)
        except (ValueError, IndexError) as error:
            raise CorruptRecordError(f"Found invalid record structure: {error!r}") from error
        self._fill(start - self._pos + length)
        return None

    def _fill(self, size: int) -> None:
        """Unpack until `size` unread bytes are in the buffer, or the stream ends."""
        if self._stream is None or len(self._buffer) - self._pos >= size:
            return
        self._dropped += self._pos
        del self._buffer[: self._pos]
        self._pos = 0
        while len(self._buffer) < size:
            chunk = _read_chunk(self._stream)
            if not chunk:
                self._stream = None
                return
            self._buffer += chunk

    # -- a record that is too large --------------------------------------------------------------

    def _cut(self, length: int) -> Cut:
        """Replace a large record with a small one."""
        self._read_varint()  # the record's length
        end = self._dropped + self._pos + length
        small = bytearray()
        for _ in range(3):  # attributes, timestamp delta, offset delta
            encode_varint(self._read_varint(), small.append)
        key, key_bytes = self._read_field()
        _append(small, key if len(key or b"") == key_bytes else None)
        value, value_bytes = self._read_field()
        _append(small, value)
        headers_bytes = end - self._dropped - self._pos
        headers = self._read_start(headers_bytes)
        small += headers if len(headers) == headers_bytes else b"\0"
        self._replace_read(small)
        complete = len(key or b"") == key_bytes and len(headers) == headers_bytes
        return Cut(length, self.max_record_bytes, value_bytes, complete)

    def _read_field(self) -> tuple[bytes | None, int]:
        """Return the beginning of a field, and its full size in bytes."""
        size = self._read_varint()
        return (None, 0) if size < 0 else (self._read_start(size), size)

    def _read_start(self, size: int) -> bytes:
        """Return the beginning of the next `size` bytes, and move past all of them."""
        if size < 0:
            raise ValueError("a field ends after its record")
        kept = min(size, _KEPT_BYTES)
        self._fill(kept)
        start = bytes(self._buffer[self._pos : self._pos + kept])
        self._pos += len(start)
        left = size - len(start)
        while left:
            self._fill(1)
            step = min(left, len(self._buffer) - self._pos)
            if not step:
                raise ValueError("the batch ends within a record")
            self._pos += step
            left -= step
        return start

    def _read_varint(self) -> int:
        self._fill(_MAX_VARINT_BYTES)
        value, self._pos = decode_varint(self._buffer, self._pos)
        return int(value)

    def _replace_read(self, record: bytearray) -> None:
        """Replace all that was read so far with a record."""
        small = bytearray()
        encode_varint(len(record), small.append)
        self._buffer[: self._pos] = small + record
        self._pos = 0


class _LenientBytes(bytearray):
    """Decodes bytes that are not UTF-8 as hex escapes; so do its slices."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        item = super().__getitem__(at)
        return _LenientBytes(item) if isinstance(item, bytearray) else item

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


def _read_chunk(stream: DecompressedStream) -> bytes:
    try:
        return stream.read(_CHUNK)
    except (CorruptRecordError, MemoryError):
        raise
    except Exception as error:  # each codec's library has its own errors
        raise CorruptRecordError(f"{type(error).__name__} in unpacking: {error}") from error


def _append(record: bytearray, field: bytes | None) -> None:
    encode_varint(-1 if field is None else len(field), record.append)
    record += field or b""


def _decompress_legacy(codec: int, payload: bytes | memoryview) -> bytes:
    """Unpack a batch from before Kafka 0.11, whose records can't be read one by one."""
    return decompress(codec, bytes(payload), MAX_RECORD_BYTES)
