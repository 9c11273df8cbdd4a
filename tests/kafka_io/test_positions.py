"""Positions: cases that a single broker can't produce."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import (
    LeaderNotAvailableError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from worker.core.records import Partition
from worker.kafka_io.positions import Positions

TP = TopicPartition("in", 0)


class SeekingConsumer:
    """A consumer of equal partitions, which records its moves."""

    def __init__(
        self, start: int, end: int, committed: int | None = None, partitions: int = 1
    ) -> None:
        self.start, self.end, self.last_commit = start, end, committed
        self.partitions = partitions
        self.leader: int | None = 1
        self.moves: list[object] = []
        self._cluster = self

    def leader_for_partition(self, _: TopicPartition) -> int | None:
        return self.leader

    def partitions_for_topic(self, _: str) -> set[int]:
        return set(range(self.partitions))

    def beginning_offsets(self, tps: list[TopicPartition], timeout_ms: int) -> dict[object, int]:
        return dict.fromkeys(tps, self.start)

    def end_offsets(self, tps: list[TopicPartition], timeout_ms: int) -> dict[object, int]:
        return dict.fromkeys(tps, self.end)

    def committed(self, tp: TopicPartition, timeout_ms: int) -> int | None:
        return self.last_commit

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.moves.append(offset)

    def seek_to_beginning(self, *tps: TopicPartition) -> None:
        self.moves.append("start")

    def seek_to_end(self, *tps: TopicPartition) -> None:
        self.moves.append("end")

    def begin(self, positions: Mapping[Partition, int], where: str) -> Mapping[Partition, int]:
        self.moves.append((where, *positions.values()))
        return positions


def positions_of(
    consumer: SeekingConsumer, *, from_start: bool = True, remade: Collection[Partition] = ()
) -> Positions:
    return Positions(
        consumer,
        from_start=from_start,
        on_begun=consumer.begin,
        start_new_epoch=consumer.moves.append,
        on_skipped=lambda _, offsets: consumer.moves.append(offsets),
        remade=lambda partition: partition in remade,
    )


def recover(
    consumer: SeekingConsumer, error: Exception, *, from_start: bool = True
) -> list[object]:
    """Return the moves, in order."""
    positions_of(consumer, from_start=from_start).recover(error)
    return consumer.moves


# -- a new group ----------------------------------------------------------------------------------


@pytest.mark.parametrize("from_start", [True, False])
def test_a_new_group_begins_at_the_configured_end(from_start: bool) -> None:
    """The handler commits the position before the consumer moves."""
    consumer = SeekingConsumer(2, 9)
    positions = positions_of(consumer, from_start=from_start)
    positions.inspect_group(["in"])
    positions.recover(NoOffsetForPartitionError({TP}))
    assert consumer.moves == ([("earliest", 2), 2] if from_start else [("latest", 9), 9])


def test_nothing_is_read_before_the_position_is_committed() -> None:
    consumer = SeekingConsumer(2, 9)
    answers: list[dict[Partition, int]] = [{}, {Partition("in", 0): 1}]
    consumer.begin = lambda *_: answers.pop(0)  # type: ignore[method-assign]
    positions = positions_of(consumer)
    positions.recover(NoOffsetForPartitionError({TP}))
    assert consumer.moves == []
    positions.recover(NoOffsetForPartitionError({TP}))
    assert consumer.moves == [1], "the committed position, not the present end"


def test_a_partition_that_was_added_begins_at_its_start() -> None:
    """It did not exist when the group began at the end."""
    consumer = SeekingConsumer(0, 9)
    positions = positions_of(consumer, from_start=False)
    positions.inspect_group(["in"])
    positions.recover(NoOffsetForPartitionError({TP, TopicPartition("in", 1)}))
    assert consumer.moves == [("earliest", 0), 0, ("latest", 9), 9]


@pytest.mark.parametrize("number", [0, 1])
def test_a_group_with_offsets_of_a_deleted_topic_begins_at_the_start_of_the_new_one(
    number: int,
) -> None:
    """They show that it is not a new group."""
    consumer = SeekingConsumer(0, 9, partitions=2)
    positions = positions_of(consumer, from_start=False, remade=[Partition("in", number)])
    positions.inspect_group(["in"])
    positions.recover(NoOffsetForPartitionError({TP}))
    assert consumer.moves == [("earliest", 0), 0]


def test_a_topic_that_is_remade_later_begins_at_its_start() -> None:
    """The partition was another worker's; it was part of a new group, which began at the end."""
    consumer, remade = SeekingConsumer(0, 9), set[Partition]()
    positions = positions_of(consumer, from_start=False, remade=remade)
    positions.inspect_group(["in"])
    remade.add(Partition(*TP))
    positions.recover(NoOffsetForPartitionError({TP}))
    assert consumer.moves == [("earliest", 0), 0]


def test_in_a_group_with_offsets_every_new_partition_begins_at_its_start() -> None:
    """Partitions may be added while no worker runs."""
    consumer = SeekingConsumer(0, 9, committed=5, partitions=3)
    positions = positions_of(consumer, from_start=False)
    positions.inspect_group(["in"])
    positions.recover(NoOffsetForPartitionError({TP}))
    assert consumer.moves == [("earliest", 0), 0]


def test_an_unknown_topic_is_retried() -> None:
    """Otherwise all its partitions would count as added, and be read from their start."""
    with pytest.raises(LeaderNotAvailableError):
        positions_of(SeekingConsumer(0, 9, partitions=0), from_start=False).inspect_group(["in"])


@pytest.mark.parametrize("leader", [-1, None])
def test_a_partition_without_a_leader_is_left_to_the_client(leader: int | None) -> None:
    consumer = SeekingConsumer(0, 9)
    consumer.leader = leader
    assert recover(consumer, NoOffsetForPartitionError({TP})) == ["start"]


# -- a position outside the log ------------------------------------------------------------------


@pytest.mark.parametrize("from_start", [True, False])
def test_only_removed_offsets_are_skipped_and_reported(from_start: bool) -> None:
    """`input.start = "latest"` is for new groups: an older one reads what is left."""
    moves = recover(SeekingConsumer(50, 90), OffsetOutOfRangeError({TP: 20}), from_start=from_start)
    assert moves == [50, range(20, 50)]


@pytest.mark.parametrize(("committed", "expected"), [(None, 3), (4, 4), (5, 5), (6, 3)])
def test_a_log_that_ends_before_the_position_is_read_from_the_commit_or_its_start(
    committed: int | None, expected: int
) -> None:
    """The offset of the truncation is unknown, and the log may have other records now."""
    moves = recover(SeekingConsumer(3, 5, committed), OffsetOutOfRangeError({TP: 20}))
    assert moves == [Partition("in", 0), expected]


def test_a_position_that_is_in_range_again_stays() -> None:
    assert recover(SeekingConsumer(0, 20), OffsetOutOfRangeError({TP: 20})) == []


@pytest.mark.parametrize(
    ("truncated_at", "committed", "expected"),
    [(70, None, 10), (70, 60, 60), (70, 75, 70), (None, 60, 60)],
)
def test_a_truncated_log_is_read_from_the_truncation_or_the_commit(
    truncated_at: int | None, committed: int | None, expected: int
) -> None:
    """The new epoch fences what is in flight, so all uncommitted records are read again."""
    divergence = None if truncated_at is None else OffsetAndMetadata(truncated_at, "", 3)
    moves = recover(SeekingConsumer(10, 90, committed), LogTruncationError({TP: divergence}))
    assert moves == [Partition("in", 0), expected]
