"""Polls the dead-letter topic, and returns the records that its dead letters were made of.

Owns: where each partition ends for this run.
Thread: poll; `note` is for any thread.
Must not import: inference, runtime.

Everything else is the worker's own source: the group, its rebalances and its commits. A dead letter
that is not replayed is passed like an offset without a record: the group's position moves past it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from kafka import TopicPartition

from worker.clock import Clock
from worker.core.dead_letters import read_letter
from worker.core.records import Partition, RawRecord
from worker.core.replay_rules import ReplaySelection
from worker.kafka_io.bounded_partitions import Unbounded
from worker.kafka_io.internals import coordinator_of
from worker.kafka_io.listener import RebalanceHandler
from worker.kafka_io.source import KafkaSource
from worker.settings import Settings

_TIMEOUT_MS: Final = 2_000


class LetterEnds(Unbounded):
    """Reads each partition up to the end that it had when the replay began.

    Args:
        consumer: the library's.
        topic: the dead-letter topic.
        ends: by partition.
    """

    def __init__(self, consumer: Any, topic: str, ends: Mapping[int, int]) -> None:
        self._consumer, self._topic = consumer, topic
        self._ends = {Partition(topic, number): end for number, end in ends.items()}
        self._cut_short = False

    def end_at(self, partition: Partition, offset: int) -> None:
        """Let a partition end earlier: as many dead letters are replayed as wanted."""
        self._ends[partition] = offset
        self._cut_short = True

    def end(self, partition: Partition) -> int:
        """Return the offset at which a partition ends; 0 for one that was added since."""
        return self._ends.get(partition, 0)

    def at_end(self, positions: Mapping[Partition, int]) -> set[Partition]:
        return {p for p, at in positions.items() if at >= self.end(p)}

    def below(self, polled: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
        kept: dict[Any, list[Any]] = {}
        for tp, records in polled.items():
            end = self.end(Partition(*tp))
            if below := [record for record in records if record.offset < end]:
                kept[tp] = below
        return kept

    def clip(self, partition: Partition, offset: int) -> int:
        return min(offset, self.end(partition))

    def finished(self, positions: Mapping[Partition, int], topics: Collection[str]) -> bool:  # noqa: ARG002 - the interface
        """Return whether the group has committed all partitions up to their ends.

        A run that is cut short by a limit ends with its own partitions: others may go on.

        Raises:
            KafkaError: the group did not answer.
        """
        if any(at < self.end(partition) for partition, at in positions.items()):
            return False
        partitions = [*positions] if self._cut_short else [*self._ends]
        tps = [TopicPartition(*partition) for partition in partitions]
        committed = coordinator_of(self._consumer).fetch_committed_offsets(
            tps, timeout_ms=_TIMEOUT_MS
        )
        offsets = {Partition(*tp): at.offset for tp, at in committed.items()}
        return all(offsets.get(partition, 0) >= self.end(partition) for partition in partitions)


class DeadLetterSource(KafkaSource):
    """A member of a replay's group.

    Args:
        settings: cluster and group; the dead-letter topic is their input.
        handler: called at every change of the assignment.
        clock: stamps records.
        selection: decides about each dead letter.
        ends: by partition.

    Raises:
        BrokerAway, Fatal: as `KafkaSource`.
    """

    def __init__(
        self,
        settings: Settings,
        handler: RebalanceHandler,
        clock: Clock,
        selection: ReplaySelection,
        ends: Mapping[int, int],
    ) -> None:
        super().__init__(settings, handler, clock)
        self._selection = selection
        self._letters = LetterEnds(self._consumer, settings.input.topic, ends)
        self._range = self._letters

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]:
        """Return the records that the next dead letters were made of."""
        return list(self._restored(super().poll(timeout, max_records)))

    def _restored(self, records: list[RawRecord]) -> Iterator[RawRecord]:
        now_ms = self._clock.wall_ms()
        for record in records:
            topic, partition, offset, _ = record.ref
            if offset >= self._letters.end(Partition(topic, partition)):
                continue
            if self._selection.is_beyond(partition, offset):
                self._letters.end_at(Partition(topic, partition), offset)
                continue
            letter = read_letter(
                partition,
                offset,
                record.timestamp_ms,
                record.key,
                record.value or b"",
                record.headers,
                cut=record.cut is not None,
            )
            if self._selection.takes(letter, now_ms):
                yield self._selection.rules.restore(letter, record.ref, record.polled_at)
