"""Reads only a range of each partition.

Owns: the range of each partition, as far as it is known.
Thread: poll; `note` is for any thread.
Must not import: inference, runtime.

A partition is not fetched while the consumer's position is at the end of its range. Records beyond,
which came with the same fetch, are dropped before anything tracks them. The position counts, not
the last record: the last offsets of a range may be transaction markers, aborted records or
compacted ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kafka import TopicPartition

from worker.core.bounds import Bounds
from worker.core.records import Partition
from worker.core.when import Span
from worker.kafka_io.admin import Admin
from worker.kafka_io.internals import coordinator_of
from worker.kafka_io.places import resolve
from worker.logs import get_logger
from worker.settings import KafkaSettings

log = get_logger(__name__)

_TIMEOUT_MS = 2_000


class Unbounded:
    """Reads all of each partition, without an end."""

    def begin(self, tps: Iterable[Any]) -> dict[Partition, int] | None:  # noqa: ARG002
        """Return where to begin without a committed offset, or None to leave it to the settings."""
        return None

    def at_end(self, positions: Mapping[Partition, int]) -> set[Partition]:  # noqa: ARG002
        """Return the partitions whose positions have reached the end of their range."""
        return set()

    def below(self, polled: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
        """Return the records of the ranges."""
        return polled

    def clip(self, partition: Partition, offset: int) -> int:  # noqa: ARG002
        """Return the offset, or the end of the partition's range if that is lower."""
        return offset

    def lose(self, partition: Partition, offsets: range) -> range:  # noqa: ARG002
        """Count offsets that were deleted before they were read; return those of the range."""
        return offsets

    def note(self, partition: Partition) -> str:  # noqa: ARG002
        """Return the metadata of each committed offset."""
        return ""

    def finished(self, positions: Mapping[Partition, int], topics: Collection[str]) -> bool:  # noqa: ARG002
        """Return whether the group has committed all partitions up to the end of their ranges."""
        return False


class BoundedPartitions(Unbounded):
    """Reads a range of each partition, which the group stores; `core.bounds` says how.

    Args:
        consumer: the library's; its coordinator is a `membership` one.
        kafka: cluster and group.
        span: the range.
    """

    def __init__(self, consumer: Any, kafka: KafkaSettings, span: Span) -> None:
        self._consumer, self._kafka, self._span = consumer, kafka, span
        self._bounds = Bounds(span.name, kafka.group_id)
        coordinator_of(consumer).on_committed = self._learn

    def _learn(self, committed: Mapping[Any, Any]) -> None:
        """IO thread: read the ranges that come with committed offsets.

        The client sets a position only after this. So each partition that is fetched has a range.
        """
        for tp, offset in committed.items():
            self._bounds.learn(Partition(*tp), offset.metadata)

    def begin(self, tps: Iterable[Any]) -> dict[Partition, int]:
        """Choose the ranges of these partitions; return their starts.

        The choice holds once the group has stored it with the start.

        Raises:
            Fatal, BrokerAway, AccessDenied: as `places.resolve`.
        """
        partitions = [Partition(*tp) for tp in tps]
        if new := [p for p in partitions if p not in self._bounds]:
            with Admin(self._kafka) as admin:
                ranges = resolve(admin, new, self._span)
            for partition, (start, end) in ranges.items():
                self._bounds.begin(partition, start, end, self._span.at_ms)
                log.info(
                    "range chosen",
                    topic=partition.topic,
                    partition=partition.partition,
                    start=start,
                    end=end,
                )
        return {p: self._bounds[p].start for p in partitions}

    def at_end(self, positions: Mapping[Partition, int]) -> set[Partition]:
        return {p for p, at in positions.items() if at >= self._bounds[p].end}

    def below(self, polled: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
        kept: dict[Any, list[Any]] = {}
        for tp, records in polled.items():
            end = self._bounds[Partition(*tp)].end
            if below := [record for record in records if record.offset < end]:
                kept[tp] = below
        return kept

    def clip(self, partition: Partition, offset: int) -> int:
        return self._bounds.clip(partition, offset)

    def lose(self, partition: Partition, offsets: range) -> range:
        return self._bounds.lose(partition, offsets)

    def note(self, partition: Partition) -> str:
        return self._bounds.note(partition)

    def finished(self, positions: Mapping[Partition, int], topics: Collection[str]) -> bool:
        """Return whether the group has committed all partitions up to the end of their ranges.

        The group is asked only if this worker has nothing left to do.

        Raises:
            KafkaError: the group did not answer.
            Fatal: the group has another range.
        """
        if any(at < self._bounds[p].end for p, at in positions.items()):
            return False
        partitions = [
            Partition(topic, number)
            for topic in topics
            for number in self._consumer.partitions_for_topic(topic) or ()
        ]
        tps = [TopicPartition(*partition) for partition in partitions]
        committed = coordinator_of(self._consumer).fetch_committed_offsets(
            tps, timeout_ms=_TIMEOUT_MS
        )
        offsets = {Partition(*tp): offset.offset for tp, offset in committed.items()}
        return bool(partitions) and self._bounds.reached(partitions, offsets)
