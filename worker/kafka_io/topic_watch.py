"""Notices topics that were deleted or recreated.

Owns: the topic ids seen so far.
Thread: the one that owns the client, except for `named` and `unnamed`, which are for the thread
that sends; the client's IO thread updates the metadata.
Must not import: inference, runtime.

The client asks for a missing topic ten times a second, without end, and joins its group without it.
It would apply a deleted topic's offsets to a new topic of the same name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from worker.clock import Clock
from worker.errors import BrokerAway, StreamlabelError, TopicMissing
from worker.kafka_io.internals import is_requested, refreshed_at

# Metadata may come from a broker that does not know every topic yet.
PATIENCE: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class SeenTopics:
    """Topics as a client saw them, for a client that takes its place.

    Attributes:
        ids: of each topic; the value is None if the broker has no ids.
        missing_since: when a topic was first missing, seconds of the monotonic clock.
        unnamed_since: when a partition of a topic was first missing, likewise.
    """

    ids: dict[str, Any] = field(default_factory=dict)
    missing_since: dict[str, float] = field(default_factory=dict)
    unnamed_since: dict[str, float] = field(default_factory=dict)


class TopicWatch:
    """Compares a client's metadata with what it saw before; sends no request.

    Args:
        metadata: of a consumer or producer; the client refreshes it.
        topics: names, which may change; a topic is checked once the client asks for it.
        clock: measures how long a topic is missing.
        patience: seconds that a topic may be missing.
        seen: what an earlier client saw; None without one.
    """

    def __init__(
        self,
        metadata: Any,
        topics: Collection[str],
        clock: Clock,
        patience: float = PATIENCE,
        seen: SeenTopics | None = None,
    ) -> None:
        self._metadata, self._topics, self._clock = metadata, topics, clock
        self._patience = patience
        seen = seen or SeenTopics()
        self._ids, self._missing_since = seen.ids, seen.missing_since
        self._unnamed_since = seen.unnamed_since
        self._asked_since: dict[str, float] = {}  # when this client first lacked a topic

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
            self._returned(name)
        for name in tuple(self._topics):
            if self._exists(name):
                self._returned(name)
                self._compare_id(name)
            elif is_requested(self._metadata, name):
                self._wait_for(name)

    def named(self, name: str) -> None:
        """Note that the metadata name every partition of a topic."""
        self._unnamed_since.pop(name, None)

    def unnamed(self, name: str, partition: int) -> StreamlabelError:
        """Return the error for a record whose partition the metadata do not name."""
        since = self._unnamed_since.setdefault(name, self._clock.monotonic())
        if refreshed_at(self._metadata) - since > self._patience:
            return TopicMissing(
                f"topic {name!r} has no partition {partition} any more: it was deleted, or "
                "recreated with fewer partitions; restart the worker to use the new topic"
            )
        return BrokerAway(f"no broker names partition {partition} of topic {name!r} now")

    def _exists(self, name: str) -> bool:
        return self._metadata.partitions_for_topic(name) is not None

    def _returned(self, name: str) -> None:
        self._missing_since.pop(name, None)
        self._asked_since.pop(name, None)

    def _compare_id(self, name: str) -> None:
        topic_id = self._metadata.topic_id(name)
        seen = self._ids.get(name)
        self._ids[name] = seen or topic_id
        if seen and topic_id and seen != topic_id:
            raise TopicMissing(
                f"topic {name!r} was deleted and recreated; restart the worker to use the new topic"
            )

    def _wait_for(self, name: str) -> None:
        """Wait up to the last response of a broker: without one, the topic may still exist."""
        now, answered_at = self._clock.monotonic(), refreshed_at(self._metadata)
        missing_since = self._missing_since.setdefault(name, now)
        # The first response to a client that takes over does not name any topic.
        asked_since = self._asked_since.setdefault(name, now)
        if answered_at > asked_since and answered_at - missing_since > self._patience:
            raise TopicMissing(
                f"topic {name!r} was deleted (`streamlabel topics create` creates the topics)"
            )
