"""Record batches as they come: with header names that are not UTF-8, and larger than they look.

Any thread that polls. Imports core and `unpacking`.

The protocol says that a header's name is UTF-8, no broker checks it, and some producers don't care.
The client gives up on such a record as corrupt, for good: its partition would stand still.

The client also unpacks a compressed batch whole. Here it is unpacked as it is read, so that a batch
may hold more than memory does. Memory holds one record at a time, and of a record that is larger
than `largest` only its beginning. Walked through, for a record of 300 MB in a batch of 292 kB:

* Its length stands ahead of it, so that it is known to be too large before it is unpacked.
* Its offset and timestamp, its key, the beginning of its value and its headers are kept; what lies
  between is unpacked and dropped, piece by piece.
* A small record of these parts takes its place in the buffer, and the client reads it as any other.
  Its headers are `CutHeaders`, which tell what is missing.
* The record behind it begins where its length said, and is read as if nothing had been.
"""

from __future__ import annotations

import functools
from typing import Any, SupportsIndex

from kafka.errors import CorruptRecordError
from kafka.record import legacy_records, memory_records
from kafka.record.default_records import DefaultRecordBase as Codecs
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint, encode_varint

from worker.core.records import Cut
from worker.kafka_io.unpacking import DecompressedStream, opened, unpacked

LARGEST = 64_000_000  # bytes of a record that is read whole, unless a client says otherwise

_PIECE = 1024 * 1024  # bytes that are unpacked at a time; most batches have fewer in all
_KEPT = 1_000_000  # bytes of a value, a key and the headers that are kept of a record that is cut
_LONGEST_VARINT = 10


def patch_record_batches() -> None:
    """Have all clients of this process read such batches. A second call changes nothing."""
    memory_records.DefaultRecordBatch = Batch
    for name, codec in (
        ("gzip_decode", Codecs.CODEC_GZIP),
        ("snappy_decode", Codecs.CODEC_SNAPPY),
        ("lz4_decode", Codecs.CODEC_LZ4),
    ):
        setattr(legacy_records, name, functools.partial(_unpack_legacy, codec))


class CutHeaders(list[tuple[str, bytes | None]]):
    """The headers of a record that was not read whole."""

    def __init__(self, headers: list[tuple[str, bytes | None]], cut: Cut) -> None:
        super().__init__(headers)
        self.cut = cut


class Batch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch that is unpacked as it is read.

    Attributes:
        largest: bytes of a record, at most, that is read whole.
    """

    _buffer: bytearray
    _pos: int
    _decompressed: bool
    largest = LARGEST
    _stream: DecompressedStream | None = None  # what is not unpacked yet
    _dropped = 0  # bytes that were read, and are not in the buffer any more

    def _maybe_uncompress(self) -> None:
        if self.compression_type != self.CODEC_NONE and not self._decompressed:
            self._assert_has_codec(self.compression_type)
            packed = bytes(memoryview(self._buffer)[self._pos :])
            self._stream = opened(self.compression_type, packed, self.largest)
            self._buffer, self._pos = bytearray(), 0
            self._have(_PIECE)
        self._decompressed = True

    def __next__(self) -> Any:
        cut = None if self._stream is None else self._have_next()
        record = super().__next__()
        if cut is not None:
            record._headers = CutHeaders(record.headers, cut)  # noqa: SLF001 - it has no setter
        return record

    def _read_msg(self, *args: Any) -> Any:
        try:
            return super()._read_msg(*args)
        except UnicodeDecodeError:
            # Nothing has moved: the position is set when a record is complete. The rest of the
            # batch is read the slow way too, for such records rarely come alone.
            self._buffer = _Bytes(self._buffer)
            return super()._read_msg(*args)

    # -- a batch of more than a piece ------------------------------------------------------------

    def _have_next(self) -> Cut | None:
        """Unpack the next record, and cut it where it is too large."""
        self._have(_LONGEST_VARINT)
        if self._next_record_index >= self._num_records:
            return None
        try:
            length, start = decode_varint(self._buffer, self._pos)
            if length > self.largest:
                return self._cut(length)
        except (ValueError, IndexError) as error:
            raise CorruptRecordError(f"Found invalid record structure: {error!r}") from error
        self._have(start - self._pos + length)
        return None

    def _have(self, size: int) -> None:
        """Unpack until so many bytes are in the buffer, or all that are left."""
        if self._stream is None or len(self._buffer) - self._pos >= size:
            return
        self._dropped += self._pos
        del self._buffer[: self._pos]
        self._pos = 0
        while len(self._buffer) < size:
            piece = _piece(self._stream)
            if not piece:
                self._stream = None
                return
            self._buffer += piece

    # -- a record that is too large --------------------------------------------------------------

    def _cut(self, length: int) -> Cut:
        """Put a small record in the place of a large one."""
        self._varint()  # its length
        end = self._dropped + self._pos + length
        small = bytearray()
        for _ in range(3):  # attributes, timestamp, offset
            encode_varint(self._varint(), small.append)
        key, key_bytes = self._field()
        _append(small, key if len(key or b"") == key_bytes else None)
        value, value_bytes = self._field()
        _append(small, value)
        headers_bytes = end - self._dropped - self._pos
        headers = self._take(headers_bytes)
        small += headers if len(headers) == headers_bytes else b"\0"
        self._replace_read(small)
        complete = len(key or b"") == key_bytes and len(headers) == headers_bytes
        return Cut(length, self.largest, value_bytes, complete)

    def _field(self) -> tuple[bytes | None, int]:
        """The beginning of a field, and the bytes that it has in all."""
        size = self._varint()
        return (None, 0) if size < 0 else (self._take(size), size)

    def _take(self, size: int) -> bytes:
        """The first bytes of the next `size`; the position is behind all of them."""
        if size < 0:
            raise ValueError("a field ends behind its record")
        kept = min(size, _KEPT)
        self._have(kept)
        taken = bytes(self._buffer[self._pos : self._pos + kept])
        self._pos += len(taken)
        left = size - len(taken)
        while left:
            self._have(1)
            step = min(left, len(self._buffer) - self._pos)
            if not step:
                raise ValueError("the batch ends within a record")
            self._pos += step
            left -= step
        return taken

    def _varint(self) -> int:
        self._have(_LONGEST_VARINT)
        value, self._pos = decode_varint(self._buffer, self._pos)
        return int(value)

    def _replace_read(self, record: bytearray) -> None:
        """Put a record in the place of what was read so far."""
        small = bytearray()
        encode_varint(len(record), small.append)
        self._buffer[: self._pos] = small + record
        self._pos = 0


class _Bytes(bytearray):
    """The client decodes slices of its buffer: in these, what is no UTF-8 is written out in hex."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        return _Bytes(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


def _piece(stream: DecompressedStream) -> bytes:
    try:
        return stream.read(_PIECE)
    except (CorruptRecordError, MemoryError):
        raise
    except Exception as error:  # each codec's library has errors of its own
        raise CorruptRecordError(f"{type(error).__name__} in unpacking: {error}") from error


def _append(record: bytearray, field: bytes | None) -> None:
    encode_varint(-1 if field is None else len(field), record.append)
    record += field or b""


def _unpack_legacy(codec: int, payload: bytes | memoryview) -> bytes:
    """A batch from before Kafka 0.11, whose records can't be read one by one."""
    return unpacked(codec, bytes(payload), LARGEST)
