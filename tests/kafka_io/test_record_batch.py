"""Reads records with header names that are not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords, memory_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from worker.kafka_io.record_batch import patch_record_batches


class NotUtf8(str):
    """A header name in another encoding."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xfftr\xe9"


@pytest.fixture(autouse=True)
def _patched() -> Iterator[None]:
    patch_record_batches()
    yield
    memory_records.DefaultRecordBatch = DefaultRecordBatch


def batch(*headers: list[tuple[str, bytes | None]], codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for offset, of_record in enumerate(headers):
        builder.append(offset, 1_000 + offset, b"key", b"value %d" % offset, of_record)
    return bytes(builder.build())


@pytest.mark.parametrize("codec", [0, 1], ids=["plain", "gzip"])
def test_header_names_that_are_not_utf8_are_escaped(codec: int) -> None:
    records = MemoryRecords(
        batch(
            [("trace", b"a")],
            [("first", b"1"), (NotUtf8("name"), b"\xff"), ("last", None)],
            [("größe", b"b")],
            codec=codec,
        )
    )
    read = list(records.next_batch())
    assert [r.headers for r in read] == [
        [("trace", b"a")],
        [("first", b"1"), ("\\xfftr\\xe9", b"\xff"), ("last", None)],
        [("größe", b"b")],
    ]
    assert [(r.offset, r.timestamp, r.key, r.value) for r in read] == [
        (n, 1_000 + n, b"key", b"value %d" % n) for n in range(3)
    ]
    assert all(type(part) is bytes for r in read for part in (r.key, r.value))


def test_a_damaged_record_stays_corrupt() -> None:
    """Only header names are read leniently."""
    raw = bytearray(batch([("trace", b"a")]))
    raw[-12] ^= 0xFF
    records = MemoryRecords(bytes(raw))
    assert not records.next_batch().validate_crc()
    corrupt = MemoryRecords(batch([(NotUtf8("name"), b"a")])[:-3] + b"\x7f\x7f\x7f")
    with pytest.raises(CorruptRecordError):
        list(corrupt.next_batch())
