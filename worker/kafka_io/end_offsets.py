"""Asks the brokers for the ends of the assigned partitions, without waiting for the answer.

Owns: the last answer, and the question that has none yet.
Thread: poll.
Must not import: inference, runtime.

A fetch response carries the end too. But a partition is not fetched while it is held or paused, nor
while records of it wait in the client: with a backlog that is a minute or more, in which the lag
would stand still and nothing would seem to arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kafka import TopicPartition

from worker.clock import Clock
from worker.core.records import Partition
from worker.kafka_io import internals

_EVERY = 1.0  # seconds between two questions
_TIMEOUT_MS = 5_000  # until an answer that does not come is given up


class EndOffsets:
    """The end offset of each assigned partition, about a second old.

    Args:
        consumer: the library's.
        epochs: returns the epoch of each assigned partition. An answer holds for its epoch: after a
            rebalance the topic may be another one.
        clock: times the questions.
    """

    def __init__(
        self, consumer: Any, epochs: Callable[[], Mapping[Partition, int]], clock: Clock
    ) -> None:
        self._consumer, self._epochs, self._clock = consumer, epochs, clock
        self._next = 0.0
        self._question: internals.Future | None = None
        self._asked: Mapping[Partition, int] = {}  # partition -> epoch
        self._ends: dict[tuple[Partition, int], int] = {}  # of partition and epoch

    def ask_if_due(self) -> None:
        """Take in an answer, and ask again once a second. A failed question is just repeated."""
        if self._question is not None:
            if not self._question.is_done:
                return
            if self._question.succeeded():
                self._note(self._question.value)
            self._question = None
        now = self._clock.monotonic()
        asked = dict(self._epochs())
        if now < self._next or not asked:
            return
        self._next, self._asked = now + _EVERY, asked
        partitions = [TopicPartition(*partition) for partition in asked]
        self._question = internals.ask_end_offsets(self._consumer, partitions, _TIMEOUT_MS)

    def get(self, partition: Partition) -> int | None:
        """Return the end offset as of the last answer, if there is one for this assignment."""
        epoch = self._epochs().get(partition)
        return None if epoch is None else self._ends.get((partition, epoch))

    def _note(self, answer: Mapping[Any, Any]) -> None:
        answered = {Partition(*tp): end.offset for tp, end in answer.items()}
        self._ends = {(one, self._asked[one]): end for one, end in answered.items()}
