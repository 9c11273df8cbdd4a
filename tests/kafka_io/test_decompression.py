"""Compressed batches are unpacked as they are read: a fake memory bound, every codec."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import snappy
from kafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords, legacy_records, memory_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder

from worker.core.records import Cut
from worker.kafka_io.decompression import decompress, open_stream
from worker.kafka_io.record_batch import CutHeaders, StreamedBatch, patch_record_batches

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS = {"gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
ENCODE: dict[int, Callable[[bytes], bytes]] = {
    GZIP: gzip_encode,
    SNAPPY: snappy_encode,
    LZ4: lz4_encode,
    ZSTD: zstd_encode,
}
MEGABYTE = 1_000_000
Given = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


@pytest.fixture(autouse=True)
def _tolerant() -> Iterator[None]:
    before = {
        name: getattr(legacy_records, name)
        for name in ("gzip_decode", "snappy_decode", "lz4_decode")
    }
    patch_record_batches()
    yield
    memory_records.DefaultRecordBatch = DefaultRecordBatch
    for name, decode in before.items():
        setattr(legacy_records, name, decode)


def batch(codec: int, *records: Given, largest: int = 2 * MEGABYTE) -> StreamedBatch:
    """As a poll gets it."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 40)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 1_000 + offset, key, value, headers)
    found = MemoryRecords(bytes(builder.build())).next_batch()
    assert isinstance(found, StreamedBatch)
    assert found.compression_type == codec
    found.max_record_bytes = largest
    return found


def told(record: Any) -> Given:
    return record.key, record.value, list(record.headers)


def small(number: int) -> Given:
    return b"key %d" % number, b"value %d" % number, [("n", b"%d" % number), ("null", None)]


@each_codec
def test_a_batch_of_many_pieces_is_read_as_it_was_written(codec: int) -> None:
    """Lengths of all kinds, so that records end anywhere in a piece."""
    r = random.Random(3)
    given = [(b"k", r.randbytes(8) * r.randrange(60_000), [("h", b"v")]) for _ in range(60)]
    found = batch(codec, *given)
    assert [(record.offset, record.timestamp, *told(record)) for record in found] == [
        (n, 1_000 + n, *one) for n, one in enumerate(given)
    ]


@each_codec
def test_a_record_that_is_too_large_is_cut_and_its_mates_are_whole(codec: int) -> None:
    large: Given = (b"large", b"x" * (30 * MEGABYTE), [("h", b"v"), ("null", None)])
    before, cut, behind = batch(codec, small(0), large, small(2))
    assert [told(before), told(behind)] == [small(0), small(2)]
    assert (cut.offset, cut.timestamp, cut.key) == (1, 1_001, b"large")
    assert cut.value == b"x" * MEGABYTE
    assert list(cut.headers) == large[2]
    assert isinstance(cut.headers, CutHeaders)
    (_, limit, value_bytes, complete) = cut.headers.cut
    assert (limit, value_bytes, complete) == (2 * MEGABYTE, 30 * MEGABYTE, True)
    assert not isinstance(behind.headers, CutHeaders)


@pytest.mark.parametrize(
    ("record", "kept", "value_bytes"),
    [
        ((b"k" * (3 * MEGABYTE), b"v", [("h", b"v")]), (None, b"v", [("h", b"v")]), 1),
        ((b"k", b"v", [("h", b"v" * (3 * MEGABYTE))]), (b"k", b"v", []), 1),
        ((b"k" * (3 * MEGABYTE), None, []), (None, None, []), 0),
    ],
    ids=["key", "headers", "null"],
)
def test_what_is_large_beside_the_value_is_left_out_and_that_is_told(
    record: Given, kept: Given, value_bytes: int
) -> None:
    _, cut, behind = batch(GZIP, small(0), record, small(2))
    assert told(cut) == kept
    assert cut.headers.cut[2:] == (value_bytes, False)
    assert told(behind) == small(2)


def test_a_cut_record_may_be_the_last_one() -> None:
    (cut,) = batch(GZIP, (None, b"x" * (3 * MEGABYTE), []))
    assert cut.headers.cut == Cut(cut.headers.cut.record_bytes, 2 * MEGABYTE, 3 * MEGABYTE, True)


def test_no_more_than_a_few_pieces_are_in_memory() -> None:
    """100 MB of records, and one of 100 MB, in what gzip makes of them."""
    mates = [(None, b" " * MEGABYTE, [])] * 100
    found = batch(GZIP, *mates, (None, b" " * (100 * MEGABYTE), []), small(0))
    tracemalloc.start()
    try:
        offsets = [record.offset for record in found]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert offsets == list(range(102))
    assert peak < 12 * MEGABYTE


# -- what can't be unpacked ----------------------------------------------------------------------


def broken(codec: int, packed: bytes, records: int = 2) -> StreamedBatch:
    """A batch of this codec whose packed part is this, with its checksum right."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 40)
    builder._buffer += packed
    builder._num_records = records
    builder.write_header()
    found = MemoryRecords(bytes(builder._buffer)).next_batch()
    assert isinstance(found, StreamedBatch)
    assert found.validate_crc()
    return found


@each_codec
def test_noise_is_called_corrupt(codec: int) -> None:
    with pytest.raises(CorruptRecordError):
        list(broken(codec, random.Random(1).randbytes(500)))


@each_codec
def test_a_batch_that_ends_too_soon_is_called_corrupt(codec: int) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 40)
    for offset, record in enumerate((small(0), (None, b"x" * (3 * MEGABYTE), []))):
        builder.append(offset, 1_000, *record)
    plain = bytes(builder.build())[DefaultRecordBatchBuilder.header_size_in_bytes() :]
    for end in (1, 10, len(plain) // 2, len(plain) - 1):
        found = broken(codec, ENCODE[codec](plain[:end]))
        found.max_record_bytes = MEGABYTE
        with pytest.raises(CorruptRecordError):
            list(found)


@each_codec
def test_bytes_behind_the_last_record_are_called_corrupt(codec: int) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 40)
    builder.append(0, 1_000, *small(0))
    plain = bytes(builder.build())[DefaultRecordBatchBuilder.header_size_in_bytes() :]
    with pytest.raises(CorruptRecordError, match="unconsumed"):
        list(broken(codec, ENCODE[codec](plain + b"\0" * (3 * MEGABYTE)), records=1))


def test_lengths_that_lead_out_of_their_record_are_called_corrupt() -> None:
    """A record of 3 MB whose key says that it has 4, and one whose key has less than nothing."""
    for key in (b"\x80\x92\xf4\x01", b"\xfe\xff\xff\xff\x0f"):
        record = b"\0\0\0" + key + b"x" * (3 * MEGABYTE)
        packed = gzip_encode(b"\x80\x9b\xee\x02" + record)
        found = broken(GZIP, packed, records=1)
        found.max_record_bytes = MEGABYTE
        with pytest.raises(CorruptRecordError):
            list(found)


def test_snappy_unpacks_blocks_whole_and_is_bounded_by_them() -> None:
    """One block of all, as some producers make it: it says ahead how large it is."""
    block = snappy.compress(b" " * (3 * MEGABYTE))
    assert open_stream(SNAPPY, block, 3 * MEGABYTE).read(5) == b" " * 5
    with pytest.raises(CorruptRecordError, match=r"3000000 bytes \(limit 2000000"):
        open_stream(SNAPPY, block, 2 * MEGABYTE).read(5)


@each_codec
def test_a_whole_batch_is_unpacked_up_to_the_bound(codec: int) -> None:
    packed = ENCODE[codec](b"a" * MEGABYTE)
    assert decompress(codec, packed, MEGABYTE) == b"a" * MEGABYTE
    with pytest.raises(CorruptRecordError, match="more than 999999 bytes"):
        decompress(codec, packed, MEGABYTE - 1)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4], ids=["gzip", "snappy", "lz4"])
def test_batches_of_the_old_format_are_bounded_too(codec: int) -> None:
    """Their records can't be told apart before they are unpacked."""
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 40)
    for offset in range(3):
        builder.append(offset, 1_000, b"k", b"x" * 1_000)
    good = MemoryRecords(bytes(builder.build())).next_batch()
    assert [(r.offset, r.key, len(r.value)) for r in good] == [(n, b"k", 1_000) for n in range(3)]
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 40)
    builder.append(0, 1_000, b"k", b"x" * (65 * MEGABYTE))
    with pytest.raises(CorruptRecordError, match="64000000"):
        list(MemoryRecords(bytes(builder.build())).next_batch())
