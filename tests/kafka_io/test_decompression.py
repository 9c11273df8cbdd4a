"""Compressed batches of every codec are unpacked as they are read."""

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
Fields = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


@pytest.fixture(autouse=True)
def _patched() -> Iterator[None]:
    before = {
        name: getattr(legacy_records, name)
        for name in ("gzip_decode", "snappy_decode", "lz4_decode")
    }
    patch_record_batches()
    yield
    memory_records.DefaultRecordBatch = DefaultRecordBatch
    for name, decode in before.items():
        setattr(legacy_records, name, decode)


def batch(codec: int, *records: Fields, largest: int = 2 * MEGABYTE) -> StreamedBatch:
    """Return a batch as the client reads it from a fetch response."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 40)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 1_000 + offset, key, value, headers)
    result = MemoryRecords(bytes(builder.build())).next_batch()
    assert isinstance(result, StreamedBatch)
    assert result.compression_type == codec
    result.max_record_bytes = largest
    return result


def fields(record: Any) -> Fields:
    return record.key, record.value, list(record.headers)


def small(number: int) -> Fields:
    return b"key %d" % number, b"value %d" % number, [("n", b"%d" % number), ("null", None)]


@each_codec
def test_a_batch_of_many_chunks_is_read_as_it_was_written(codec: int) -> None:
    """Records of many lengths end anywhere in a chunk."""
    r = random.Random(3)
    written = [(b"k", r.randbytes(8) * r.randrange(60_000), [("h", b"v")]) for _ in range(60)]
    read = batch(codec, *written)
    assert [(record.offset, record.timestamp, *fields(record)) for record in read] == [
        (n, 1_000 + n, *record) for n, record in enumerate(written)
    ]


@each_codec
def test_a_large_record_is_cut_and_its_neighbours_are_whole(codec: int) -> None:
    large: Fields = (b"large", b"x" * (30 * MEGABYTE), [("h", b"v"), ("null", None)])
    before, cut, after = batch(codec, small(0), large, small(2))
    assert [fields(before), fields(after)] == [small(0), small(2)]
    assert (cut.offset, cut.timestamp, cut.key) == (1, 1_001, b"large")
    assert cut.value == b"x" * MEGABYTE
    assert list(cut.headers) == large[2]
    assert isinstance(cut.headers, CutHeaders)
    (_, limit, value_bytes, complete) = cut.headers.cut
    assert (limit, value_bytes, complete) == (2 * MEGABYTE, 30 * MEGABYTE, True)
    assert not isinstance(after.headers, CutHeaders)


@pytest.mark.parametrize(
    ("record", "kept", "value_bytes"),
    [
        ((b"k" * (3 * MEGABYTE), b"v", [("h", b"v")]), (None, b"v", [("h", b"v")]), 1),
        ((b"k", b"v", [("h", b"v" * (3 * MEGABYTE))]), (b"k", b"v", []), 1),
        ((b"k" * (3 * MEGABYTE), None, []), (None, None, []), 0),
    ],
    ids=["key", "headers", "null"],
)
def test_a_large_key_or_header_is_dropped_and_marked(
    record: Fields, kept: Fields, value_bytes: int
) -> None:
    _, cut, after = batch(GZIP, small(0), record, small(2))
    assert fields(cut) == kept
    assert cut.headers.cut[2:] == (value_bytes, False)
    assert fields(after) == small(2)


def test_a_cut_record_may_be_the_last_one() -> None:
    (cut,) = batch(GZIP, (None, b"x" * (3 * MEGABYTE), []))
    assert cut.headers.cut == Cut(cut.headers.cut.record_bytes, 2 * MEGABYTE, 3 * MEGABYTE, True)


def test_only_a_few_chunks_are_in_memory() -> None:
    """100 MB of records, and one of 100 MB, compressed with gzip."""
    records = [(None, b" " * MEGABYTE, [])] * 100
    result = batch(GZIP, *records, (None, b" " * (100 * MEGABYTE), []), small(0))
    tracemalloc.start()
    try:
        offsets = [record.offset for record in result]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert offsets == list(range(102))
    assert peak < 12 * MEGABYTE


# -- what can't be unpacked ----------------------------------------------------------------------


def broken(codec: int, packed: bytes, records: int = 2) -> StreamedBatch:
    """Return a batch with this packed part and a correct checksum."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 40)
    builder._buffer += packed
    builder._num_records = records
    builder.write_header()
    result = MemoryRecords(bytes(builder._buffer)).next_batch()
    assert isinstance(result, StreamedBatch)
    assert result.validate_crc()
    return result


@each_codec
def test_random_bytes_are_corrupt(codec: int) -> None:
    with pytest.raises(CorruptRecordError):
        list(broken(codec, random.Random(1).randbytes(500)))


@each_codec
def test_a_truncated_batch_is_corrupt(codec: int) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 40)
    for offset, record in enumerate((small(0), (None, b"x" * (3 * MEGABYTE), []))):
        builder.append(offset, 1_000, *record)
    plain = bytes(builder.build())[DefaultRecordBatchBuilder.header_size_in_bytes() :]
    for end in (1, 10, len(plain) // 2, len(plain) - 1):
        result = broken(codec, ENCODE[codec](plain[:end]))
        result.max_record_bytes = MEGABYTE
        with pytest.raises(CorruptRecordError):
            list(result)


@each_codec
def test_bytes_after_the_last_record_are_corrupt(codec: int) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 40)
    builder.append(0, 1_000, *small(0))
    plain = bytes(builder.build())[DefaultRecordBatchBuilder.header_size_in_bytes() :]
    with pytest.raises(CorruptRecordError, match="unconsumed"):
        list(broken(codec, ENCODE[codec](plain + b"\0" * (3 * MEGABYTE)), records=1))


def test_field_lengths_beyond_their_record_are_corrupt() -> None:
    """A record of 3 MB has a key of 4 MB, another a key of negative length."""
    for key in (b"\x80\x92\xf4\x01", b"\xfe\xff\xff\xff\x0f"):
        record = b"\0\0\0" + key + b"x" * (3 * MEGABYTE)
        packed = gzip_encode(b"\x80\x9b\xee\x02" + record)
        result = broken(GZIP, packed, records=1)
        result.max_record_bytes = MEGABYTE
        with pytest.raises(CorruptRecordError):
            list(result)


def test_a_snappy_block_is_bounded() -> None:
    """Some producers write one block, which begins with its length."""
    block = snappy.compress(b" " * (3 * MEGABYTE))
    assert open_stream(SNAPPY, block, 3 * MEGABYTE).read(5) == b" " * 5
    with pytest.raises(CorruptRecordError, match=r"3000000 bytes \(limit 2000000"):
        open_stream(SNAPPY, block, 2 * MEGABYTE).read(5)


@each_codec
def test_a_whole_batch_is_unpacked_up_to_the_limit(codec: int) -> None:
    packed = ENCODE[codec](b"a" * MEGABYTE)
    assert decompress(codec, packed, MEGABYTE) == b"a" * MEGABYTE
    with pytest.raises(CorruptRecordError, match="more than 999999 bytes"):
        decompress(codec, packed, MEGABYTE - 1)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4], ids=["gzip", "snappy", "lz4"])
def test_legacy_batches_are_bounded(codec: int) -> None:
    """Their records can't be read one by one."""
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 40)
    for offset in range(3):
        builder.append(offset, 1_000, b"k", b"x" * 1_000)
    good = MemoryRecords(bytes(builder.build())).next_batch()
    assert [(r.offset, r.key, len(r.value)) for r in good] == [(n, b"k", 1_000) for n in range(3)]
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 40)
    builder.append(0, 1_000, b"k", b"x" * (65 * MEGABYTE))
    with pytest.raises(CorruptRecordError, match="64000000"):
        list(MemoryRecords(bytes(builder.build())).next_batch())
