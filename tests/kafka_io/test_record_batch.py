"""Records with header names that are not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords, memory_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from worker.kafka_io.record_batch import patch_record_batches


class OddName(str):
    """A header name that a careless producer sends."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xfftr\xe9"


@pytest.fixture(autouse=True)
def _tolerant() -> Iterator[None]:
    patch_record_batches()
    yield
    memory_records.DefaultRecordBatch = DefaultRecordBatch


def batch(*headers: list[tuple[str, bytes | None]], codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for offset, some in enumerate(headers):
        builder.append(offset, 1_000 + offset, b"key", b"value %d" % offset, some)
    return bytes(builder.build())


@pytest.mark.parametrize("codec", [0, 1], ids=["plain", "gzip"])
def test_odd_names_are_written_out_and_their_mates_are_as_they_were(codec: int) -> None:
    records = MemoryRecords(
        batch(
            [("trace", b"a")],
            [("first", b"1"), (OddName("odd"), b"\xff"), ("last", None)],
            [("größe", b"b")],
            codec=codec,
        )
    )
    found = list(records.next_batch())
    assert [r.headers for r in found] == [
        [("trace", b"a")],
        [("first", b"1"), ("\\xfftr\\xe9", b"\xff"), ("last", None)],
        [("größe", b"b")],
    ]
    assert [(r.offset, r.timestamp, r.key, r.value) for r in found] == [
        (n, 1_000 + n, b"key", b"value %d" % n) for n in range(3)
    ]
    assert all(type(part) is bytes for r in found for part in (r.key, r.value))


def test_what_is_damaged_stays_so() -> None:
    """Only names are forgiven."""
    raw = bytearray(batch([("trace", b"a")]))
    raw[-12] ^= 0xFF
    records = MemoryRecords(bytes(raw))
    assert not records.next_batch().validate_crc()
    broken = MemoryRecords(batch([(OddName("odd"), b"a")])[:-3] + b"\x7f\x7f\x7f")
    with pytest.raises(CorruptRecordError):
        list(broken.next_batch())
