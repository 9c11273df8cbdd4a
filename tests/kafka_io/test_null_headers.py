"""Null header values: the client's builder writes them, but its `send` does not accept them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka.producer.producer_batch import ProducerBatch
from kafka.record import MemoryRecords, memory_records
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition

from worker.kafka_io.null_headers import patch_batch_builder, replace_nulls

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
