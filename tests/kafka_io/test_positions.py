"""Where to read on: the cases that one broker can't be made to show."""

from __future__ import annotations

from collections.abc import Mapping

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


class Log:
    """A consumer of partitions that are all alike, as far as it is asked and moved."""

    def __init__(
        self, start: int, end: int, committed: int | None = None, partitions: int = 1
    ) -> None:
        self.start, self.end, self.done = start, end, committed
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
        return self.done

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.moves.append(offset)

    def seek_to_beginning(self, *tps: TopicPartition) -> None:
        self.moves.append("start")

    def seek_to_end(self, *tps: TopicPartition) -> None:
        self.moves.append("end")

    def begin(self, positions: Mapping[Partition, int], where: str) -> Mapping[Partition, int]:
        self.moves.append((where, *positions.values()))
        return positions


def of(log: Log, *, from_start: bool = True) -> Positions:
    return Positions(
        log,
        from_start=from_start,
        on_begun=log.begin,
        start_new_epoch=log.moves.append,
        on_skipped=lambda _, offsets: log.moves.append(offsets),
    )


def recover(log: Log, error: Exception, *, from_start: bool = True) -> list[object]:
    """What happened, in order."""
    of(log, from_start=from_start).recover(error)
    return log.moves


# -- where a group begins --------------------------------------------------------------------------


@pytest.mark.parametrize("from_start", [True, False])
def test_a_new_group_begins_where_the_setting_says(from_start: bool) -> None:
    """And is told so before it moves."""
    log = Log(2, 9)
    positions = of(log, from_start=from_start)
    positions.inspect_group("in")
    positions.recover(NoOffsetForPartitionError({TP}))
    assert log.moves == ([("earliest", 2), 2] if from_start else [("latest", 9), 9])


def test_nothing_is_read_before_the_position_is_committed() -> None:
    log = Log(2, 9)
    answers: list[dict[Partition, int]] = [{}, {Partition("in", 0): 1}]
    log.begin = lambda *_: answers.pop(0)  # type: ignore[method-assign]
    positions = of(log)
    positions.recover(NoOffsetForPartitionError({TP}))
    assert log.moves == []
    positions.recover(NoOffsetForPartitionError({TP}))
    assert log.moves == [1], "where its commit says, not where it begins by now"


def test_a_partition_that_was_added_begins_at_its_start() -> None:
    """It was not there when the group began at the end."""
    log = Log(0, 9)
    positions = of(log, from_start=False)
    positions.inspect_group("in")
    positions.recover(NoOffsetForPartitionError({TP, TopicPartition("in", 1)}))
    assert log.moves == [("earliest", 0), 0, ("latest", 9), 9]


def test_a_group_that_has_offsets_had_all_its_partitions_begun() -> None:
    """Partitions were added while no worker ran."""
    log = Log(0, 9, committed=5, partitions=3)
    positions = of(log, from_start=False)
    positions.inspect_group("in")
    positions.recover(NoOffsetForPartitionError({TP}))
    assert log.moves == [("earliest", 0), 0]


def test_a_topic_that_is_not_known_yet_is_no_topic_without_partitions() -> None:
    """Else all of them would count as added, and be read from their start."""
    with pytest.raises(LeaderNotAvailableError):
        of(Log(0, 9, partitions=0), from_start=False).inspect_group("in")


@pytest.mark.parametrize("leader", [-1, None])
def test_a_partition_without_a_leader_keeps_no_other_one_waiting(leader: int | None) -> None:
    log = Log(0, 9)
    log.leader = leader
    assert recover(log, NoOffsetForPartitionError({TP})) == ["start"]


# -- a log that has not the position ---------------------------------------------------------------


@pytest.mark.parametrize("from_start", [True, False])
def test_what_retention_removed_is_told_and_nothing_else_is_skipped(from_start: bool) -> None:
    """`input.start = "latest"` is for new groups: one that fell behind reads what is left."""
    found = recover(Log(50, 90), OffsetOutOfRangeError({TP: 20}), from_start=from_start)
    assert found == [50, range(20, 50)]


@pytest.mark.parametrize(("committed", "to"), [(None, 3), (4, 4), (5, 5), (6, 3)])
def test_a_log_that_ends_before_the_position_is_read_from_the_commit_or_its_start(
    committed: int | None, to: int
) -> None:
    """Nobody says where it was cut: what was committed may be somebody else's offset by now."""
    found = recover(Log(3, 5, committed), OffsetOutOfRangeError({TP: 20}))
    assert found == [Partition("in", 0), to]


def test_a_position_that_is_in_range_by_now_stays() -> None:
    assert recover(Log(0, 20), OffsetOutOfRangeError({TP: 20})) == []


@pytest.mark.parametrize(
    ("cut", "committed", "to"), [(70, None, 10), (70, 60, 60), (70, 75, 70), (None, 60, 60)]
)
def test_a_log_that_was_cut_is_read_from_the_cut_or_the_commit(
    cut: int | None, committed: int | None, to: int
) -> None:
    """What was in flight is fenced by the new epoch, so everything not committed comes again."""
    where = None if cut is None else OffsetAndMetadata(cut, "", 3)
    found = recover(Log(10, 90, committed), LogTruncationError({TP: where}))
    assert found == [Partition("in", 0), to]
