"""Compressed batches as streams: no more of one is unpacked than is asked for.

Any thread that polls. The client unpacks a batch whole before anyone sees a record of it, and 292
kB of gzip can be 300 MB. Imports none of our modules.
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
from kafka.record.default_records import DefaultRecordBase as Codecs

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


class DecompressedStream(Protocol):
    """A file, as the codecs' libraries call it."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, fewer at will; none at the end."""
        ...


def opened(codec: int, packed: bytes, largest: int) -> DecompressedStream:
    """Unpack `packed` as it is read.

    Args:
        codec: as a batch's attributes have it.
        packed: the compressed bytes.
        largest: bytes that a block may have, where the codec unpacks blocks whole (snappy).
    """
    if codec == Codecs.CODEC_GZIP:
        return gzip.GzipFile(fileobj=io.BytesIO(packed))
    if codec == Codecs.CODEC_LZ4:
        lz4_file: DecompressedStream = lz4.frame.LZ4FrameFile(io.BytesIO(packed))
        return lz4_file
    if codec == Codecs.CODEC_ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    return _Snappy(packed, largest)


def unpacked(codec: int, packed: bytes, largest: int) -> bytes:
    """All that `packed` unpacks to.

    Raises:
        CorruptRecordError: that is more than `largest` bytes.
    """
    stream, whole = opened(codec, packed, largest), bytearray()
    while piece := stream.read(largest + 1 - len(whole)):
        whole += piece
        if len(whole) > largest:
            raise CorruptRecordError(f"it unpacks to more than {largest} bytes")
    return bytes(whole)


class _Snappy:
    """Blocks, each with its length ahead: of one block, or of several in xerial's framing."""

    def __init__(self, packed: bytes, largest: int) -> None:
        self._blocks, self._largest = _blocks(packed), largest
        self._current = io.BytesIO()

    def read(self, size: int, /) -> bytes:
        while not (piece := self._current.read(size)):
            block = next(self._blocks, None)
            if block is None:
                return b""
            length = _length(block)
            if length > self._largest:
                raise CorruptRecordError(
                    f"one snappy block unpacks to {length} bytes, the bound is {self._largest}"
                )
            self._current = io.BytesIO(snappy.uncompress(block))
        return piece


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


def _length(block: bytes) -> int:
    """Bytes that a block says it unpacks to: a varint of five bytes at most."""
    length = 0
    for place, byte in enumerate(block[:5]):
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    return length
