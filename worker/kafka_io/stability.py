"""How far the input is stable: what the client is told with each answer, and drops.

The poll thread. Imports no inference and no runtime.

A consumer that reads committed records alone gets none from the first open transaction on, be they
of other producers and long complete. The offset where that begins, the last stable one, comes with
each fetch, beside the end.
"""

from __future__ import annotations

from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher

from worker.core.records import Partition


class StableEnds:
    """Knows the last stable offset of each partition, as the last fetch told it.

    Args:
        consumer: the library's; nothing was fetched by it yet.
    """

    def __init__(self, consumer: Any) -> None:
        self._ends: dict[TopicPartition, int] = {}
        # The client makes its fetcher itself and offers no hook.
        fetcher = consumer._fetcher  # noqa: SLF001 - there is no public way
        fetcher.__class__ = _Fetcher
        fetcher.stable_ends = self._ends

    def of(self, partition: Partition) -> int | None:
        """Its last stable offset, None before the first fetch."""
        return self._ends.get(TopicPartition(*partition))


class _Fetcher(Fetcher):  # type: ignore[misc]
    stable_ends: dict[TopicPartition, int]

    def _parse_fetched_data(self, completed_fetch: Any) -> Any:
        stable = completed_fetch.partition_data.last_stable_offset
        if stable is not None and stable >= 0:  # an error's answer has none
            self.stable_ends[completed_fetch.topic_partition] = stable
        return super()._parse_fetched_data(completed_fetch)
