"""Reads compressed batches as streams.

Owns: one decompressor for each codec.
Thread: any that polls.
Must not import: any other module of the worker but `internals`.

The library unpacks a batch whole before it returns a record of it, and 292 kB of gzip can be
300 MB. A stream unpacks only as much as is read.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from typing import Protocol

import lz4.frame
import snappy
import zstandard
from kafka.errors import CorruptRecordError

from worker.kafka_io.internals import DefaultRecordBatch

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


class DecompressedStream(Protocol):
    """A binary file."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, perhaps fewer; none at the end."""
        ...


def open_stream(codec: int, packed: bytes, max_block_bytes: int) -> DecompressedStream:
    """Return a stream that unpacks `packed` as it is read.

    Args:
        codec: the number in the batch's attributes.
        packed: the compressed bytes.
        max_block_bytes: limit of a block, for a codec that unpacks blocks whole (snappy).
    """
    if codec == DefaultRecordBatch.CODEC_GZIP:
        return gzip.GzipFile(fileobj=io.BytesIO(packed))
    if codec == DefaultRecordBatch.CODEC_LZ4:
        lz4_file: DecompressedStream = lz4.frame.LZ4FrameFile(io.BytesIO(packed))
        return lz4_file
    if codec == DefaultRecordBatch.CODEC_ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    return _SnappyStream(packed, max_block_bytes)


def decompress(codec: int, packed: bytes, max_bytes: int) -> bytes:
    """Return all of `packed`, unpacked.

    Raises:
        CorruptRecordError: it has more than `max_bytes` bytes.
    """
    stream, whole = open_stream(codec, packed, max_bytes), bytearray()
    while chunk := stream.read(max_bytes + 1 - len(whole)):
        whole += chunk
        if len(whole) > max_bytes:
            raise CorruptRecordError(f"the batch unpacks to more than {max_bytes} bytes")
    return bytes(whole)


class _SnappyStream:
    """One snappy block, or several in xerial's framing; each begins with its unpacked length."""

    def __init__(self, packed: bytes, max_block_bytes: int) -> None:
        self._blocks, self._max_block_bytes = _blocks(packed), max_block_bytes
        self._current = io.BytesIO()

    def read(self, size: int, /) -> bytes:
        while not (chunk := self._current.read(size)):
            block = next(self._blocks, None)
            if block is None:
                return b""
            length = _unpacked_length(block)
            if length > self._max_block_bytes:
                raise CorruptRecordError(
                    f"a snappy block unpacks to {length} bytes (limit {self._max_block_bytes})"
                )
            self._current = io.BytesIO(snappy.uncompress(block))
        return chunk


def _blocks(packed: bytes) -> Iterator[bytes]:
    if not packed.startswith(_XERIAL):
        yield packed
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(packed):
        (size,) = struct.unpack_from(">i", packed, at)
        at += 4
        yield packed[at : at + size]
        at += size


def _unpacked_length(block: bytes) -> int:
    """Return the unpacked length of a block: a varint of at most five bytes at its start."""
    length = 0
    for index, byte in enumerate(block[:5]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    return length
