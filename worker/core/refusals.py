"""Decides when output topics refuse so much that the worker must stop.

A worker may publish to several topics: results by route, copies, notes of filtered records. A topic
that accepts its records says nothing about another one, so that each is judged for itself.

Owns: a circuit breaker for each output topic.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance. Pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from worker.core.faults import OUTPUT, CircuitBreaker
from worker.core.records import Encoded
from worker.errors import CircuitOpen


class TopicVerdict(NamedTuple):
    """A topic accepted or refused a result, a copy or a note of a record."""

    topic: str
    refused: bool


def verdicts_of(parts: Iterable[Encoded]) -> tuple[TopicVerdict, ...]:
    """Return the verdicts on a record's outcome and copies.

    A dead letter has one only if it stands for a refused part: other dead letters show nothing
    about the topics of results.
    """
    return tuple(_verdicts(parts))


def _verdicts(parts: Iterable[Encoded]) -> Iterator[TopicVerdict]:
    for part in parts:
        if part.reason is None:
            yield TopicVerdict(part.topic, refused=False)
        elif topic := part.refused_by:
            yield TopicVerdict(topic, refused=True)


class TopicBreakers:
    """Stops a worker whose records are refused by all topics together, or by one of them.

    Args:
        together: counts each record, refused if one of its parts is. The breakers of the topics
            have its limits.
    """

    def __init__(self, together: CircuitBreaker) -> None:
        self._together = together
        self._by_topic: dict[str, CircuitBreaker] = {}
        self._open = False

    def note(self, verdicts: Sequence[TopicVerdict]) -> None:
        """Count one record, unless the worker stops already.

        Args:
            verdicts: on its outcome and copies, at least one.

        Raises:
            CircuitOpen: once: too many records were refused; names the setting, and the topic if
                others accept their records.
        """
        if self._open:
            return
        try:
            for topic, refused in verdicts:
                self._of(topic).note(failed=refused)
            self._together.note(failed=any(refused for _, refused in verdicts))
        except CircuitOpen:
            self._open = True
            raise

    def _of(self, topic: str) -> CircuitBreaker:
        if (breaker := self._by_topic.get(topic)) is None:
            _, cause = OUTPUT
            blame = (f"have an outcome that the topic {topic!r} refuses", cause)
            breaker = self._by_topic[topic] = self._together.twin(blame)
        return breaker
