"""Notices topics that were deleted or recreated.

Owns: the topic ids seen so far.
Thread: the one that owns the client; the client's IO thread updates the metadata.
Must not import: inference, runtime.

The client asks for a missing topic ten times a second, without end, and joins its group without it.
It would apply a deleted topic's offsets to a new topic of the same name.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from worker.clock import Clock
from worker.errors import TopicMissing
from worker.kafka_io.internals import is_requested, refreshed_at

# Metadata may come from a broker that does not know every topic yet.
PATIENCE: Final = 10.0  # seconds


class TopicWatch:
    """Compares a client's metadata with what it saw before; sends no request.

    Args:
        metadata: of a consumer or producer; the client refreshes it.
        topics: names, which may change; a topic is checked once the client asks for it.
        clock: measures how long a topic is missing.
        patience: seconds that a topic may be missing.
    """

    def __init__(
        self, metadata: Any, topics: Collection[str], clock: Clock, patience: float = PATIENCE
    ) -> None:
        self._metadata, self._topics, self._clock = metadata, topics, clock
        self._patience = patience
        self._ids: dict[str, Any] = {}  # by name; the value is None if the broker has no ids
        self._missing_since: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The topics that are watched."""
        return tuple(self._topics)

    def topic_id(self, name: str) -> Any:
        """Any thread: return the id that a topic had at first, or None."""
        return self._ids.get(name)

    def missing(self) -> bool:
        """Return whether a topic that existed is missing now, even for a moment."""
        return any(not self._exists(name) for name in self._topics if name in self._ids)

    def check(self) -> None:
        """Return while every topic is the one it was.

        Raises:
            TopicMissing: a topic has been missing for too long, or was recreated.
        """
        for name in self._ids.keys() - set(self._topics):  # it may be created again
            del self._ids[name]
            self._missing_since.pop(name, None)
        for name in tuple(self._topics):
            if self._exists(name):
                self._missing_since.pop(name, None)
                self._compare_id(name)
            elif is_requested(self._metadata, name):
                self._wait_for(name)

    def _exists(self, name: str) -> bool:
        return self._metadata.partitions_for_topic(name) is not None

    def _compare_id(self, name: str) -> None:
        topic_id = self._metadata.topic_id(name)
        if topic_id != self._ids.setdefault(name, topic_id):
            raise TopicMissing(
                f"topic {name!r} was deleted and recreated; restart the worker to use the new topic"
            )

    def _wait_for(self, name: str) -> None:
        """Wait up to the last response of a broker: without one, the topic may still exist."""
        missing_since = self._missing_since.setdefault(name, self._clock.monotonic())
        if refreshed_at(self._metadata) - missing_since > self._patience:
            raise TopicMissing(
                f"topic {name!r} was deleted (`streamlabel topics create` creates the topics)"
            )
