"""BoundedPoller: the client's own fetcher reads batches without a broker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords, memory_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from worker.errors import InputDamaged
from worker.kafka_io.bounded_poll import BatchUnreadable, BoundedPoller
from worker.kafka_io.record_batch import CutHeaders, patch_record_batches
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings

KAFKA = KafkaSettings(bootstrap_servers="a:1,b:2", group_id="my group")
FIRST, SECOND = TopicPartition("in", 3), TopicPartition("in", 4)
GZIP = 1
MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def _patched() -> Iterator[None]:
    patch_record_batches()
    yield
    memory_records.DefaultRecordBatch = DefaultRecordBatch


class FetchingConsumer:
    """The client's fetcher with fetched batches, and the parts of a consumer that it needs."""

    def __init__(self, **fetched: bytes) -> None:
        positions = {FIRST: 0, SECOND: 0}
        self.assignment = {
            tp: SimpleNamespace(position=OffsetAndMetadata(at, "", -1), highwater=None)
            for tp, at in positions.items()
        }
        self._fetcher = Fetcher.__new__(Fetcher)
        vars(self._fetcher).update(
            config={"max_poll_records": 500},
            _subscriptions=SimpleNamespace(
                assignment=self.assignment,
                is_paused=lambda _: False,
                is_fetchable=lambda _: True,
                is_assigned=lambda _: True,
                position=lambda tp: self.assignment[tp].position,
            ),
            _sensors=None,
            _next_in_line_exception_metadata=None,
            _next_partition_records=None,
            _paused_completed_fetches={},
            _paused_partition_records={},
            _completed_fetches=deque(
                SimpleNamespace(topic_partition=tp, fetched_offset=0, data=fetched[name])
                for tp, name in ((FIRST, "first"), (SECOND, "second"))
                if name in fetched
            ),
            _parse_fetched_data=self._parse,
        )

    def _parse(self, fetch: Any) -> Any:
        return self._fetcher.PartitionRecords(0, fetch.topic_partition, MemoryRecords(fetch.data))

    def poll(self, timeout_ms: float, max_records: int) -> dict[Any, list[Any]]:
        records, _ = self._fetcher.fetched_records(max_records)
        polled: dict[Any, list[Any]] = records
        return polled


def batch(sizes: list[int], start: int = 0, *, plain: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0 if plain else GZIP, False, -1, -1, -1, 1 << 40)
    for offset, size in enumerate(sizes):
        builder.append(offset, 1_000, None, b"x" * size, [])
    return start.to_bytes(8, "big") + bytes(builder.build())[8:]


def polled(poller: BoundedPoller, max_records: int = 500) -> list[tuple[int, int]]:
    """Return the partition and offset of each record of one poll."""
    by_partition = poller.poll(0, max_records)
    return [(tp.partition, r.offset) for tp, records in by_partition.items() for r in records]


def test_a_poll_returns_a_few_megabytes_and_the_next_one_continues() -> None:
    consumer = FetchingConsumer(first=batch([3 * MEGABYTE] * 5), second=batch([3 * MEGABYTE]))
    poller = BoundedPoller(consumer, KAFKA)
    polls = [polled(poller) for _ in range(4)]
    assert polls == [[(3, 0), (3, 1)], [(3, 2), (3, 3)], [(3, 4), (4, 0)], []]


def test_small_records_are_bounded_by_their_number() -> None:
    consumer = FetchingConsumer(first=batch([10] * 700), second=batch([10] * 5))
    poller = BoundedPoller(consumer, KAFKA)
    assert [len(polled(poller)) for _ in range(3)] == [500, 205, 0]


def test_a_record_above_the_byte_limit_is_returned_alone() -> None:
    poller = BoundedPoller(FetchingConsumer(first=batch([9 * MEGABYTE, 1, 9 * MEGABYTE])), KAFKA)
    assert [polled(poller) for _ in range(3)] == [[(3, 0)], [(3, 1), (3, 2)], []]


def test_each_consumer_has_its_own_limit_of_a_record() -> None:
    data = batch([3 * MEGABYTE])
    (cut,) = BoundedPoller(FetchingConsumer(first=data), KAFKA, 2 * MEGABYTE).poll(0, 500)[FIRST]
    (whole,) = BoundedPoller(FetchingConsumer(first=data), KAFKA).poll(0, 500)[FIRST]
    assert isinstance(cut.headers, CutHeaders)
    assert (len(cut.value), len(whole.value)) == (MEGABYTE, 3 * MEGABYTE)


@pytest.mark.parametrize("reason", ["crc", "codec", "structure"])
def test_an_unreadable_batch_is_reported_after_the_records_before_it(reason: str) -> None:
    """With its offsets, and a command that skips it."""
    damaged = bytearray(batch([5] * 4, start=10))
    if reason == "crc":
        damaged[-1] ^= 0xFF
    else:
        damaged[21:23] = {"codec": b"\0\6", "structure": b"\0\0"}[reason]  # attributes
        damaged = with_checksum(damaged)
    poller = BoundedPoller(
        FetchingConsumer(first=batch([5] * 10) + bytes(damaged) + batch([5], start=14)), KAFKA
    )
    assert polled(poller) == [(3, offset) for offset in range(10)]
    with pytest.raises(BatchUnreadable) as caught:
        polled(poller)
    with pytest.raises(BatchUnreadable):
        polled(poller)
    error = translate(caught.value)
    assert isinstance(error, InputDamaged)
    assert str(error).startswith("in[3]: offsets 10 to 13 can't be read: ")
    assert str(error).endswith(
        "\n  python -P -m kafka.admin --bootstrap-servers a:1,b:2 groups reset-offsets "
        "--group-id 'my group' --partition in:3 --to-offset 14"
    )


def test_only_the_unreadable_part_of_a_batch_is_reported() -> None:
    """The records before it were returned."""
    damaged = with_checksum(bytearray(batch([5] * 4, plain=True)[:-7] + b"\x7f" * 7))
    poller = BoundedPoller(FetchingConsumer(first=bytes(damaged)), KAFKA)
    assert polled(poller) == [(3, 0), (3, 1), (3, 2)]
    with pytest.raises(BatchUnreadable, match="offsets 3 to 3"):
        polled(poller)


def test_without_a_group_no_command_is_suggested() -> None:
    damaged = bytearray(batch([5]))
    damaged[-1] ^= 0xFF
    with pytest.raises(BatchUnreadable) as caught:
        polled(BoundedPoller(FetchingConsumer(first=bytes(damaged))))
    assert caught.value.text.startswith("in[3]: offsets 0 to 0 can't be read: ")
    assert "reset-offsets" not in caught.value.text


def test_a_batch_without_a_header_is_reported_by_the_position() -> None:
    without_header = (0).to_bytes(8, "big") + (5).to_bytes(4, "big") + b"\0" * 5
    with pytest.raises(BatchUnreadable, match="offsets 0 to 0"):
        polled(BoundedPoller(FetchingConsumer(first=without_header), KAFKA))


def with_checksum(data: bytearray) -> bytearray:
    """Return the batch with a correct checksum."""
    crc = memory_records.DefaultRecordBatch.CRC_OFFSET
    start = memory_records.DefaultRecordBatch.ATTRIBUTES_OFFSET
    data[crc:start] = calc_crc32c(memoryview(bytes(data))[start:]).to_bytes(4, "big")
    return data
