"""Notices that a topic which was there is gone, or is another one of the same name.

The thread that owns the client asks; the client's IO thread keeps the metadata that are looked at.
Imports no inference and no runtime.

The client asks for a missing topic ten times a second, for ever, and joins its group without it;
to a topic that was made anew it would apply the old one's offsets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from worker.clock import Clock
from worker.errors import TopicMissing

# Metadata may come from a broker that has not heard of everything yet.
_PATIENCE = 10.0  # seconds


class TopicWatch:
    """Looks at a client's metadata; no call leaves the process.

    Args:
        cluster: the metadata of a consumer or producer, kept fresh by the client.
        topics: names; each is judged once the client asks for it.
    """

    def __init__(self, cluster: Any, topics: Iterable[str], clock: Clock) -> None:
        self._cluster, self._topics, self._clock = cluster, tuple(topics), clock
        self._seen: dict[str, Any] = {}  # name -> its id, None where the broker tells none
        self._gone_since: dict[str, float] = {}

    def gone(self) -> bool:
        """Whether a topic that was there is missing, be it for a moment."""
        return any(not self._there(name) for name in self._seen)

    def check(self) -> None:
        """Return while the topics are what they were.

        Raises:
            TopicMissing: one has been gone for a while, or was made anew.
        """
        for name in self._topics:
            if self._there(name):
                self._gone_since.pop(name, None)
                self._compare(name)
            elif name in self._cluster._topics:  # noqa: SLF001 - those that it asks for
                self._wait_for(name)

    def _there(self, name: str) -> bool:
        return self._cluster.partitions_for_topic(name) is not None

    def _compare(self, name: str) -> None:
        now_there = self._cluster.topic_id(name)
        if now_there != self._seen.setdefault(name, now_there):
            raise TopicMissing(
                f"topic {name!r} was deleted and made anew; start the worker again to go on with "
                "the new one"
            )

    def _wait_for(self, name: str) -> None:
        """Patience counts up to the last answer of a broker: without one, nobody knows."""
        gone_since = self._gone_since.setdefault(name, self._clock.monotonic())
        answered_at = self._cluster._last_successful_refresh_ms / 1000  # noqa: SLF001
        if answered_at - gone_since > _PATIENCE:
            raise TopicMissing(
                f"topic {name!r} was deleted (`streamlabel topics create` makes the topics)"
            )
