"""Finds a position where the group or the log has none.

Owns: which partitions begin at their end.
Thread: poll.
Must not import: inference, runtime.

By default the client moves to the start or the end of the log without notice, and the option that
sets where a group begins (`input.start`) also decides what a worker skips after it fell behind
retention. So the client is configured to raise instead (`auto_offset_reset="none"`), and three
cases get three answers:

* No committed offset: a group begins where `input.start` says. A partition that was added since, or
  is of a topic that was created again, begins at its start. The group commits that position before
  it reads from there: without a commit the next worker would choose another one.
* The log begins after the position (retention, deleted records): read on at the first record that
  remains, and report the offsets that are gone.
* The log ends before the position (an unclean leader election): go back to where the log was
  truncated, or to the committed offset if that is lower. A new epoch fences what is in flight, as
  the new log may have other records at the same offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import (
    LeaderNotAvailableError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from worker.core.records import Partition
from worker.kafka_io.internals import consumer_metadata, has_leader
from worker.kafka_io.listener import StartFrom
from worker.logs import get_logger

log = get_logger(__name__)

POSITION_ERRORS = (NoOffsetForPartitionError, OffsetOutOfRangeError, LogTruncationError)

_TIMEOUT_MS = 5_000


class Positions:
    """Moves the positions of a consumer.

    Args:
        consumer: the library's.
        from_start: whether a partition without a committed offset begins at its start, else end.
        begin: returns where these partitions begin, None to let `from_start` decide.
        on_begun: commits first positions; returns those that are committed.
        start_new_epoch: gives a partition a new epoch.
        on_skipped: called with offsets that were deleted before they were read.
        remade: returns whether the group had an offset of a deleted topic of the same name.
    """

    def __init__(
        self,
        consumer: Any,
        *,
        from_start: bool,
        begin: Callable[[Iterable[TopicPartition]], Mapping[Partition, int] | None] = lambda _: (
            None
        ),
        on_begun: Callable[[Mapping[Partition, int], StartFrom], Mapping[Partition, int]],
        start_new_epoch: Callable[[Partition], None],
        on_skipped: Callable[[Partition, range], None],
        remade: Callable[[Partition], bool] = lambda _: False,
    ) -> None:
        self._consumer, self._from_start = consumer, from_start
        self._begin_at, self._on_begun = begin, on_begun
        self._start_new_epoch, self._on_skipped = start_new_epoch, on_skipped
        self._remade = remade
        self._from_end: frozenset[TopicPartition] = frozenset()

    def inspect_group(self, topics: Collection[str]) -> None:
        """Find the partitions that begin at their end; call before the consumer joins the group.

        They are the partitions that exist now, if the group has committed nothing yet in any of
        the topics. A partition that appears later was added, and so was one without an offset if
        the group has others: a topic may be created while no worker runs. An offset that does not
        count, as its topic was deleted, shows a group that is not new either.

        Two workers that start a new group together both inspect it before either has joined, so
        neither takes the other's first commit for that of an older group.

        Raises:
            KafkaError: the broker did not answer.
        """
        if self._from_start:
            return
        partitions: list[TopicPartition] = []
        for topic in topics:
            numbers = self._consumer.partitions_for_topic(topic)
            if not numbers:
                raise LeaderNotAvailableError(f"the partitions of {topic!r} are not known yet")
            partitions += [TopicPartition(topic, number) for number in numbers]
        if not any(self._committed(tp) is not None or self._was_remade(tp) for tp in partitions):
            self._from_end = frozenset(partitions)

    def restart(self, tps: Iterable[TopicPartition], *, recreated: bool) -> None:
        """Read on after a topic was gone; the partitions are still assigned.

        Args:
            tps: partitions of one topic.
            recreated: whether it is another topic under the name. It is read from its start, as the
                group may have an offset of the old one.

        Raises:
            KafkaError, BrokerAway: the broker did not answer; call again.
        """
        for tp in tps:
            committed = None if recreated else self._committed(tp)
            self._start_new_epoch(Partition(*tp))
            if committed is None:
                self._consumer.seek_to_beginning(tp)
            else:
                self._consumer.seek(tp, committed)

    def recover(self, error: Exception) -> None:
        """Find positions for the partitions that `error` (one of `POSITION_ERRORS`) names.

        Raises:
            KafkaError, BrokerAway: the broker did not answer; the next poll raises `error` again.
        """
        if isinstance(error, NoOffsetForPartitionError):
            self._begin(sorted(error.args[0]))
        elif isinstance(error, OffsetOutOfRangeError):
            for tp, position in error.args[0].items():
                self._move_into_range(tp, position)
        elif isinstance(error, LogTruncationError):
            for tp, divergence in error.divergent_offsets.items():
                self._go_back(tp, None if divergence is None else divergence.offset)

    def _begin(self, tps: list[TopicPartition]) -> None:
        """Commit and take the first positions of these partitions.

        A partition without a leader is left to the client, which waits for one, so that the other
        partitions need not wait. The position that the client finds is committed like any other.
        """
        consumer = self._consumer
        if (chosen_starts := self._begin_at(tps)) is not None:
            self._begin_from(chosen_starts, "range")
            return
        starts: tuple[tuple[StartFrom, Any, Any], ...] = (
            ("earliest", consumer.beginning_offsets, consumer.seek_to_beginning),
            ("latest", consumer.end_offsets, consumer.seek_to_end),
        )
        metadata = consumer_metadata(consumer)
        for where, ask, seek_later in starts:
            chosen = [tp for tp in tps if self._at_end(tp) == (where == "latest")]
            if leaderless := [tp for tp in chosen if not has_leader(metadata, tp)]:
                seek_later(*leaderless)
            if led := [tp for tp in chosen if tp not in leaderless]:
                offsets = ask(led, timeout_ms=_TIMEOUT_MS)
                positions = {Partition(*tp): offset for tp, offset in offsets.items()}
                self._begin_from(positions, where)

    def _at_end(self, tp: TopicPartition) -> bool:
        return tp in self._from_end and not self._was_remade(tp)

    def _was_remade(self, tp: TopicPartition) -> bool:
        return self._remade(Partition(*tp))

    def _begin_from(self, positions: Mapping[Partition, int], where: StartFrom) -> None:
        for partition, offset in self._on_begun(positions, where).items():
            self._consumer.seek(TopicPartition(*partition), offset)

    def _move_into_range(self, tp: TopicPartition, position: int) -> None:
        start = self._start(tp)
        if position < start:
            self._consumer.seek(tp, start)
            self._on_skipped(Partition(*tp), range(position, start))
        elif position > self._end(tp):
            self._go_back(tp, None)

    def _go_back(self, tp: TopicPartition, truncated_at: int | None) -> None:
        """Read on at or before `truncated_at`, which may be unknown (None)."""
        committed = self._committed(tp)
        if committed is None or (truncated_at is None and committed > self._end(tp)):
            offset = self._start(tp)
        else:
            offset = committed if truncated_at is None else min(truncated_at, committed)
        self._start_new_epoch(Partition(*tp))
        self._consumer.seek(tp, offset)
        log.warning(
            "the input's log was truncated, reading on at an earlier offset",
            topic=tp.topic,
            partition=tp.partition,
            offset=offset,
        )

    def _committed(self, tp: TopicPartition) -> int | None:
        committed: int | None = self._consumer.committed(tp, timeout_ms=_TIMEOUT_MS)
        return committed

    def _start(self, tp: TopicPartition) -> int:
        start: int = self._consumer.beginning_offsets([tp], timeout_ms=_TIMEOUT_MS)[tp]
        return start

    def _end(self, tp: TopicPartition) -> int:
        end: int = self._consumer.end_offsets([tp], timeout_ms=_TIMEOUT_MS)[tp]
        return end
