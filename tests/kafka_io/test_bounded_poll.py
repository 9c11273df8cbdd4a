"""How much a poll gives out at once: the client's own fetcher, on batches without a broker."""

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
HERE, THERE = TopicPartition("in", 3), TopicPartition("in", 4)
GZIP = 1
MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def _tolerant() -> Iterator[None]:
    patch_record_batches()
    yield
    memory_records.DefaultRecordBatch = DefaultRecordBatch


class Consumer:
    """The client's fetcher with what it has fetched, and as much of the rest as that needs."""

    def __init__(self, **fetched: bytes) -> None:
        positions = {HERE: 0, THERE: 0}
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
                for tp, name in ((HERE, "here"), (THERE, "there"))
                if name in fetched
            ),
            _parse_fetched_data=self._parse,
        )

    def _parse(self, fetch: Any) -> Any:
        return self._fetcher.PartitionRecords(0, fetch.topic_partition, MemoryRecords(fetch.data))

    def poll(self, timeout_ms: float, max_records: int) -> dict[Any, list[Any]]:
        records, _ = self._fetcher.fetched_records(max_records)
        found: dict[Any, list[Any]] = records
        return found


def batch(sizes: list[int], start: int = 0, *, plain: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0 if plain else GZIP, False, -1, -1, -1, 1 << 40)
    for offset, size in enumerate(sizes):
        builder.append(offset, 1_000, None, b"x" * size, [])
    return start.to_bytes(8, "big") + bytes(builder.build())[8:]


def polled(poller: BoundedPoller, max_records: int = 500) -> list[tuple[int, int]]:
    """Partition and offset of each record of one poll."""
    found = poller.poll(0, max_records)
    return [(tp.partition, record.offset) for tp, some in found.items() for record in some]


def test_a_poll_gives_out_a_few_megabytes_and_the_next_one_goes_on() -> None:
    consumer = Consumer(here=batch([3 * MEGABYTE] * 5), there=batch([3 * MEGABYTE]))
    poller = BoundedPoller(consumer, KAFKA)
    polls = [polled(poller) for _ in range(4)]
    assert polls == [[(3, 0), (3, 1)], [(3, 2), (3, 3)], [(3, 4), (4, 0)], []]


def test_small_records_are_bounded_by_their_number_as_ever() -> None:
    consumer = Consumer(here=batch([10] * 700), there=batch([10] * 5))
    poller = BoundedPoller(consumer, KAFKA)
    assert [len(polled(poller)) for _ in range(3)] == [500, 205, 0]


def test_a_record_of_more_than_a_poll_gives_comes_alone() -> None:
    poller = BoundedPoller(Consumer(here=batch([9 * MEGABYTE, 1, 9 * MEGABYTE])), KAFKA)
    assert [polled(poller) for _ in range(3)] == [[(3, 0)], [(3, 1), (3, 2)], []]


def test_the_largest_record_is_each_consumers_own() -> None:
    data = batch([3 * MEGABYTE])
    (cut,) = BoundedPoller(Consumer(here=data), KAFKA, 2 * MEGABYTE).poll(0, 500)[HERE]
    (whole,) = BoundedPoller(Consumer(here=data), KAFKA).poll(0, 500)[HERE]
    assert isinstance(cut.headers, CutHeaders)
    assert (len(cut.value), len(whole.value)) == (MEGABYTE, 3 * MEGABYTE)


@pytest.mark.parametrize("reason", ["crc", "codec", "structure"])
def test_a_batch_that_can_not_be_read_is_named_after_all_before_it(reason: str) -> None:
    """With its offsets, and a command that leads past it."""
    bad = bytearray(batch([5] * 4, start=10))
    if reason == "crc":
        bad[-1] ^= 0xFF
    else:
        bad[21:23] = {"codec": b"\0\6", "structure": b"\0\0"}[reason]  # attributes
        bad = resealed(bad)
    poller = BoundedPoller(
        Consumer(here=batch([5] * 10) + bytes(bad) + batch([5], start=14)), KAFKA
    )
    assert polled(poller) == [(3, offset) for offset in range(10)]
    with pytest.raises(BatchUnreadable) as caught:
        polled(poller)
    with pytest.raises(BatchUnreadable):
        polled(poller)
    fault = translate(caught.value)
    assert isinstance(fault, InputDamaged)
    assert str(fault).startswith("in[3]: offsets 10 to 13 can't be read: ")
    assert str(fault).endswith(
        "\n  python -P -m kafka.admin --bootstrap-servers a:1,b:2 groups reset-offsets "
        "--group-id 'my group' --partition in:3 --to-offset 14"
    )


def test_of_a_batch_that_breaks_in_the_middle_only_the_rest_is_named() -> None:
    """What was read of it before has been given out."""
    bad = resealed(bytearray(batch([5] * 4, plain=True)[:-7] + b"\x7f" * 7))
    poller = BoundedPoller(Consumer(here=bytes(bad)), KAFKA)
    assert polled(poller) == [(3, 0), (3, 1), (3, 2)]
    with pytest.raises(BatchUnreadable, match="offsets 3 to 3"):
        polled(poller)


def test_whoever_reads_for_no_group_is_told_the_place_alone() -> None:
    bad = bytearray(batch([5]))
    bad[-1] ^= 0xFF
    with pytest.raises(BatchUnreadable) as caught:
        polled(BoundedPoller(Consumer(here=bytes(bad))))
    assert caught.value.text.startswith("in[3]: offsets 0 to 0 can't be read: ")
    assert "reset-offsets" not in caught.value.text


def test_a_batch_without_a_head_is_named_by_the_position() -> None:
    headless = (0).to_bytes(8, "big") + (5).to_bytes(4, "big") + b"\0" * 5
    with pytest.raises(BatchUnreadable, match="offsets 0 to 0"):
        polled(BoundedPoller(Consumer(here=headless), KAFKA))


def resealed(data: bytearray) -> bytearray:
    """The same with a checksum that is right."""
    crc = memory_records.DefaultRecordBatch.CRC_OFFSET
    start = memory_records.DefaultRecordBatch.ATTRIBUTES_OFFSET
    data[crc:start] = calc_crc32c(memoryview(bytes(data))[start:]).to_bytes(4, "big")
    return data
