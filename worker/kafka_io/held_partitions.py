"""Partitions that are not fetched: held, paused with all others, or at their end.

Owns: which partitions are held or at their end, and whether all are paused.
Thread: poll.
Must not import: inference, runtime.

Three causes stop the fetches of a partition: the worker has as many records as it may hold
(`pause`), the next record must wait (`hold`), or the position is at the end of what is read
(`stop_at_end`). They begin and end independently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kafka import TopicPartition

from worker.core.records import Partition, RecordRef
from worker.kafka_io import internals


class HeldPartitions:
    """Pauses a consumer's partitions.

    Args:
        consumer: the library's.
        epochs: returns the epoch of each assigned partition. A hold ends with its epoch, because
            the client pauses no partition that is assigned again.
    """

    def __init__(self, consumer: Any, epochs: Callable[[], Mapping[Partition, int]]) -> None:
        self._consumer, self._epochs = consumer, epochs
        self._held: dict[Partition, int] = {}
        self._at_end: set[TopicPartition] = set()
        self._all_paused = False

    def hold(self, ref: RecordRef, leader_epoch: int) -> None:
        """Move a partition's position back to a record, and stop its fetches.

        The client drops what it has fetched beyond, because that does not begin at the position.

        Args:
            ref: the record.
            leader_epoch: of the record. The client compares it with the log, also while the
                partition is paused, and so notices a truncation.
        """
        tp = TopicPartition(ref.topic, ref.partition)
        internals.seek(self._consumer, tp, ref.offset, leader_epoch)
        self._consumer.pause(tp)
        self._held[Partition(*tp)] = ref.epoch

    def release(self, partition: Partition) -> None:
        """End a hold. The partition is fetched again unless all are paused."""
        self._held.pop(partition, None)
        # Not by its epoch: a topic that vanished for a moment keeps its partitions, and the client
        # keeps them paused.
        tp = TopicPartition(*partition)
        if tp in self._consumer.assignment() and not self._all_paused:
            self._consumer.resume(tp)

    def stop_at_end(self, partitions: Iterable[Partition]) -> None:
        """Fetch nothing more of these partitions, and again of those that are no longer among them.

        A position goes back from its end if the log was truncated. Call before each poll: the ends
        of `pause` and of a hold resume a partition that is at its end too.
        """
        at_end = {TopicPartition(*partition) for partition in partitions}
        paused = self._consumer.paused()
        if reached := at_end - paused:
            self._consumer.pause(*reached)
        left = (self._at_end - at_end) & paused
        if left and not self._all_paused:
            self._consumer.resume(*(left - self._held_now()))
        self._at_end = at_end

    def pause(self) -> None:
        """Pause all assigned partitions; call again after a rebalance."""
        self._all_paused = True
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """End `pause`; held partitions stay paused."""
        self._all_paused = False
        self._consumer.resume(*(self._consumer.paused() - self._held_now()))

    def _held_now(self) -> set[TopicPartition]:
        epochs = self._epochs()
        return {TopicPartition(*p) for p, epoch in self._held.items() if epochs.get(p) == epoch}
