"""The builder of batches: null header values, and the same bytes as the library's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.producer.producer_batch import ProducerBatch
from kafka.record import MemoryRecords, memory_records
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition

from worker.clock import SystemClock
from worker.kafka_io.null_headers import _Builder, patch_batch_builder, replace_nulls

HEADERS = [("a", None), ("b", b""), ("c", b"c")]


@pytest.fixture(autouse=True)
def _writes_nulls() -> Iterator[None]:
    patch_batch_builder()
    yield
    memory_records.DefaultRecordBatchBuilder = DefaultRecordBatchBuilder


def test_a_null_passes_the_clients_check_and_is_written_as_null() -> None:
    headers = replace_nulls(HEADERS)
    assert all(isinstance(value, bytes) for _, value in headers)
    builder = MemoryRecordsBuilder(2, 0, 1 << 20)
    batch = ProducerBatch(TopicPartition("t", 0), builder)
    assert batch.try_append(1_000, b"k", b"v", headers)
    builder.close()
    (record,) = MemoryRecords(bytes(builder.buffer())).next_batch()
    assert (record.key, record.value, record.headers) == (b"k", b"v", HEADERS)


def test_the_clients_size_estimate_is_right() -> None:
    size = DefaultRecordBatchBuilder.size_of
    assert size(b"k", b"v", replace_nulls(HEADERS)) == size(b"k", b"v", HEADERS)


def test_a_record_without_a_timestamp_gets_the_present_time() -> None:
    """Other producers of the process use this builder too."""
    before = SystemClock().wall_ms()
    builder = MemoryRecordsBuilder(2, 0, 1 << 20)
    for _ in range(2):
        builder.append(None, b"k", b"v", replace_nulls(HEADERS))
    builder.close()
    records = list(MemoryRecords(bytes(builder.buffer())).next_batch())
    assert all(before <= record.timestamp <= SystemClock().wall_ms() for record in records)
    assert [record.headers for record in records] == [HEADERS, HEADERS]


_BYTES = st.none() | st.binary(max_size=200) | st.binary(min_size=5_000, max_size=5_000)
_RECORDS = st.tuples(
    st.integers(0, 2**40), _BYTES, _BYTES, st.lists(st.tuples(st.text(max_size=9), _BYTES))
)


@given(st.lists(_RECORDS, max_size=20), st.integers(100, 20_000))
def test_a_batch_has_the_bytes_that_the_library_writes(records: list[Any], most: int) -> None:
    options = {
        "magic": 2, "compression_type": 0, "is_transactional": True, "producer_id": 7,
        "producer_epoch": 1, "base_sequence": 3, "batch_size": most,
    }  # fmt: skip
    ours, theirs = _Builder(**options), DefaultRecordBatchBuilder(**options)
    offset = 0
    for timestamp, key, value, headers in records:
        one = ours.append(offset, timestamp, key, value, replace_nulls(headers))
        other = theirs.append(offset, timestamp, key, value, headers)
        assert (one and (one.offset, one.size, one.timestamp)) == (
            other and (other.offset, other.size, other.timestamp)
        )
        offset += one is not None
    assert ours.build() == theirs.build()
