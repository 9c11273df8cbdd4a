"""Records the last stable offset of each partition.

Owns: the last stable offsets; the client's fetcher.
Thread: poll.
Must not import: inference, runtime.

A `read_committed` consumer gets no record from the first open transaction on, not even completed
records of other producers. Each fetch response carries that offset, the last stable one, beside the
end offset; the client drops it.
"""

from __future__ import annotations

from typing import Any

from kafka import TopicPartition

from worker.core.records import Partition
from worker.kafka_io.internals import Fetcher, fetcher_of


class StableOffsets:
    """The last stable offset of each partition, as of its last fetch.

    Args:
        consumer: the library's; it has not fetched yet.
    """

    def __init__(self, consumer: Any) -> None:
        self._offsets: dict[TopicPartition, int] = {}
        # The client makes its fetcher and offers no hook.
        fetcher = fetcher_of(consumer)
        fetcher.__class__ = _Fetcher
        fetcher.stable_offsets = self._offsets

    def get(self, partition: Partition) -> int | None:
        """Return the last stable offset, or None before the first fetch."""
        return self._offsets.get(TopicPartition(*partition))


class _Fetcher(Fetcher):  # type: ignore[misc]
    stable_offsets: dict[TopicPartition, int]

    def _parse_fetched_data(self, completed_fetch: Any) -> Any:
        stable = completed_fetch.partition_data.last_stable_offset
        if stable is not None and stable >= 0:  # an error response has none
            self.stable_offsets[completed_fetch.topic_partition] = stable
        return super()._parse_fetched_data(completed_fetch)
