"""Reading only a range of each partition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

import pytest
from kafka import OffsetAndMetadata, TopicPartition

from worker.core.bounds import Bound
from worker.core.records import Partition
from worker.core.when import Span, When
from worker.errors import Fatal
from worker.kafka_io import bounded_partitions
from worker.kafka_io.bounded_partitions import BoundedPartitions
from worker.settings import KafkaSettings

A, B = TopicPartition("in", 0), TopicPartition("in", 1)
P, Q = Partition(*A), Partition(*B)
SPAN = Span(When("earliest", "earliest"), When("latest", "now"))


class RangeConsumer:
    """A consumer of two partitions without a broker, and its coordinator.

    Attributes:
        stored: the group's offsets.
        asked: the partitions of each question for them.
    """

    def __init__(self) -> None:
        self._coordinator = self
        self.on_committed: Any = None
        self.stored: dict[TopicPartition, OffsetAndMetadata] = {}
        self.asked: list[list[TopicPartition]] = []

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1} if topic == "in" else None

    def fetch_committed_offsets(self, tps: list[TopicPartition], timeout_ms: int) -> Any:
        self.asked.append(tps)
        self.on_committed(self.stored)
        return self.stored

    def store(self, tp: TopicPartition, at: int, bound: Bound) -> None:
        self.stored[tp] = OffsetAndMetadata(at, bound.note(), -1)
        self.on_committed(self.stored)


class Bench:
    def __init__(self) -> None:
        self.consumer = RangeConsumer()
        self.range = BoundedPartitions(self.consumer, KafkaSettings(), SPAN)


@pytest.fixture
def bench() -> Bench:
    """Partition 0 ends at 10, partition 1 at 5."""
    bench = Bench()
    bench.consumer.store(A, 3, Bound(3, 10, 0, SPAN.text))
    bench.consumer.store(B, 5, Bound(2, 5, 0, SPAN.text))
    return bench


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset) for offset in offsets]


def offsets(polled: dict[Any, list[Any]]) -> dict[Any, list[int]]:
    return {tp: [record.offset for record in found] for tp, found in polled.items()}


def test_a_partition_ends_with_its_range(bench: Bench) -> None:
    assert bench.range.at_end({P: 9, Q: 5}) == {Q}
    assert bench.range.at_end({P: 10, Q: 5}) == {P, Q}
    assert bench.range.at_end({P: 3}) == set()


def test_records_beyond_the_end_are_dropped(bench: Bench) -> None:
    polled = {A: records(8, 9, 10, 11), B: records(5, 6)}
    assert offsets(bench.range.below(polled)) == {A: [8, 9]}


def test_a_partition_whose_range_is_not_stored_is_not_read(bench: Bench) -> None:
    bench.consumer.stored[A] = OffsetAndMetadata(3, "", -1)
    bench.consumer.on_committed(bench.consumer.stored)
    with pytest.raises(Fatal, match="belongs to no range"):
        bench.range.below({A: records(3)})
    with pytest.raises(Fatal, match="belongs to no range"):
        bench.range.at_end({P: 3})


def test_the_group_is_asked_only_when_nothing_is_left_to_read(bench: Bench) -> None:
    assert not bench.range.finished({P: 9, Q: 5}, ["in"])
    assert bench.consumer.asked == []
    assert not bench.range.finished({P: 10, Q: 5}, ["in"])  # 0 is committed up to 3 only
    assert bench.consumer.asked == [[A, B]]
    bench.consumer.store(A, 10, Bound(3, 10, 0, SPAN.text))
    assert bench.range.finished({}, ["in"])  # of a member without partitions


def test_a_topic_that_is_not_known_yet_is_not_finished(bench: Bench) -> None:
    assert not bench.range.finished({}, ["elsewhere"])
    assert not bench.range.finished({}, [])


def test_a_range_is_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start whose commit is not answered yet is asked for again, and stays the same."""
    bench, ends = Bench(), iter((20, 30))

    class Connected:
        def __init__(self, _: object) -> None: ...
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

    def resolve(_: object, partitions: list[Partition], __: Span) -> Any:
        end = next(ends)
        return dict.fromkeys(partitions, (3, end))

    monkeypatch.setattr(bounded_partitions, "Admin", Connected)
    monkeypatch.setattr(bounded_partitions, "resolve", resolve)
    assert bench.range.begin([A]) == {P: 3}
    assert bench.range.begin([A, B]) == {P: 3, Q: 3}
    assert [bench.range.clip(p, 99) for p in (P, Q)] == [20, 30]
    assert bench.range.note(P) == Bound(3, 20, 0, SPAN.text).note()
    assert bench.range.lose(P, range(18, 25)) == range(18, 20)
