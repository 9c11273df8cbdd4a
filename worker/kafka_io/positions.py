"""Where to read on when the client has no position, or the log has not the one it has.

The poll thread. Imports no inference and no runtime.

Left to itself the client moves to the start or the end of the log without a word, and where a
group begins (`input.start`) also decides what a worker skips that fell behind retention. So it is
told to ask (`auto_offset_reset="none"`), and three cases get three answers:

* no committed offset: a group begins where `input.start` says, and a partition that was added since
  at its start. The group commits that position before it reads from there: without a commit the
  next worker would choose another one;
* the log begins after the position (retention, deleted records): on to the first record that is
  left, and what is gone is told;
* the log ends before the position (an unclean leader election): back to where it was cut, or to
  the committed offset where that is lower. What is in flight is fenced by a new epoch, for the
  new log may have other records at the same offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import (
    LeaderNotAvailableError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from worker.core.records import Partition
from worker.kafka_io.listener import Where
from worker.logs import get_logger

log = get_logger(__name__)

LOST = (NoOffsetForPartitionError, OffsetOutOfRangeError, LogTruncationError)

_ASK_MS = 5_000


class Positions:
    """Moves the positions of a consumer.

    Args:
        consumer: the library's.
        from_start: where a partition without committed offset begins; else at its end.
        on_begun: told where the group may begin, tells what it has committed of that by now.
        begin_anew: gives a partition a new epoch.
        on_skipped: told of offsets that were gone before they were read.
    """

    def __init__(
        self,
        consumer: Any,
        *,
        from_start: bool,
        on_begun: Callable[[Mapping[Partition, int], Where], Mapping[Partition, int]],
        begin_anew: Callable[[Partition], None],
        on_skipped: Callable[[Partition, range], None],
    ) -> None:
        self._consumer, self._from_start = consumer, from_start
        self._on_begun = on_begun
        self._begin_anew, self._on_skipped = begin_anew, on_skipped
        self._from_end: frozenset[TopicPartition] = frozenset()

    def look(self, topic: str) -> None:
        """Before the group is joined: which partitions begin at their end.

        Those that are there now, if the group has committed nothing yet. A partition that comes
        later was added, and so was one without an offset where the group has some already.

        Two workers that begin a group together both look before either is in it, so neither takes
        the other's first commit for a group that was there.

        Raises:
            KafkaError: the broker did not answer.
        """
        if self._from_start:
            return
        there = [TopicPartition(topic, n) for n in self._consumer.partitions_for_topic(topic)]
        if not there:
            raise LeaderNotAvailableError(f"the partitions of {topic!r} are not known yet")
        if not any(self._committed(tp) is not None for tp in there):
            self._from_end = frozenset(there)

    def recover(self, error: Exception) -> None:
        """Give the partitions that `error` (one of `LOST`) names a position.

        Raises:
            KafkaError, BrokerAway: the broker did not answer; the next poll raises `error` again.
        """
        if isinstance(error, NoOffsetForPartitionError):
            self._begin(sorted(error.args[0]))
        elif isinstance(error, OffsetOutOfRangeError):
            for tp, position in error.args[0].items():
                self._into_range(tp, position)
        elif isinstance(error, LogTruncationError):
            for tp, cut in error.divergent_offsets.items():
                self._back(tp, None if cut is None else cut.offset)

    def _begin(self, tps: list[TopicPartition]) -> None:
        """Begin these partitions of the group, as their leaders say.

        The client waits for a leader that is missing, so that the other partitions need not. The
        position that it finds is committed like any other that moved.
        """
        consumer = self._consumer
        ways: tuple[tuple[Where, Any, Any], ...] = (
            ("earliest", consumer.beginning_offsets, consumer.seek_to_beginning),
            ("latest", consumer.end_offsets, consumer.seek_to_end),
        )
        for where, ask, wait in ways:
            here = [tp for tp in tps if (tp in self._from_end) == (where == "latest")]
            if leaderless := [tp for tp in here if not self._has_leader(tp)]:
                wait(*leaderless)
            if led := [tp for tp in here if tp not in leaderless]:
                chosen = ask(led, timeout_ms=_ASK_MS)
                kept = self._on_begun({Partition(*tp): at for tp, at in chosen.items()}, where)
                for partition, at in kept.items():
                    consumer.seek(TopicPartition(*partition), at)

    def _has_leader(self, tp: TopicPartition) -> bool:
        cluster = self._consumer._cluster  # noqa: SLF001 - there is no public way
        return cluster.leader_for_partition(tp) not in (None, -1)

    def _into_range(self, tp: TopicPartition, position: int) -> None:
        start = self._start(tp)
        if position < start:
            self._consumer.seek(tp, start)
            self._on_skipped(Partition(*tp), range(position, start))
        elif position > self._end(tp):
            self._back(tp, None)

    def _back(self, tp: TopicPartition, cut: int | None) -> None:
        """Read on at `cut`, or before it; None where nobody knows what is left of the old log."""
        committed = self._committed(tp)
        if committed is None or (cut is None and committed > self._end(tp)):
            to = self._start(tp)
        else:
            to = committed if cut is None else min(cut, committed)
        self._begin_anew(Partition(*tp))
        self._consumer.seek(tp, to)
        log.warning(
            "the input's log was cut back, reading on from there",
            topic=tp.topic,
            partition=tp.partition,
            offset=to,
        )

    def _committed(self, tp: TopicPartition) -> int | None:
        committed: int | None = self._consumer.committed(tp, timeout_ms=_ASK_MS)
        return committed

    def _start(self, tp: TopicPartition) -> int:
        start: int = self._consumer.beginning_offsets([tp], timeout_ms=_ASK_MS)[tp]
        return start

    def _end(self, tp: TopicPartition) -> int:
        end: int = self._consumer.end_offsets([tp], timeout_ms=_ASK_MS)[tp]
        return end
