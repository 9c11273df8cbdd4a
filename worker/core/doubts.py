"""The outcomes that prove nothing for an audit, because their record can't be known.

Owns: the first offset and the earliest timestamp of each input.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from worker.core.records import Partition
from worker.core.scope import Scope


class Doubts:
    """Tells why an outcome without a known record is no orphan.

    Args:
        scopes: scope of each input partition.
        compacted: input topics that compaction removes records from.

    Attributes:
        starts: start offset of each partition; see `Ledger.set_starts`.
    """

    def __init__(self, scopes: Mapping[Partition, Scope], compacted: Collection[str]) -> None:
        self._scopes, self._compacted = scopes, compacted
        self._topics = {partition.topic for partition in scopes}
        self._nonempty = {partition.topic for partition, scope in scopes.items() if scope.end}
        self._earliest_ms: dict[str, int] = {}  # by input topic
        self.starts: Mapping[Partition, int] = {}

    def record(self, topic: str, timestamp_ms: int) -> None:
        """Add a record of the input that is judged."""
        self._earliest_ms[topic] = min(self._earliest_ms.get(topic, timestamp_ms), timestamp_ms)

    def is_older(self, topic: str, timestamp_ms: int) -> bool:
        """Return whether no record of the input topic can have this timestamp.

        A topic that is deleted and created again restarts at offset 0. Outcomes of the deleted
        topic's records have coordinates of the new topic's records, or of none. Only their
        timestamps differ.
        """
        if topic not in self._earliest_ms:
            return topic not in self._nonempty
        return timestamp_ms < self._earliest_ms[topic]

    def why(self, origin: Partition, at: int, *, older: bool) -> str:
        """Return why an outcome without a known record proves nothing; empty for an orphan."""
        if origin.topic not in self._topics:
            return "outcome of another input topic"
        scope = self._scopes.get(origin)
        exists = scope is not None and at < scope.end
        reasons = {
            "of a record outside the range": scope is not None and exists and scope.outside(at),
            "of a record that retention has removed": at < self.starts.get(origin, 0),
            "of an older topic of this name": older,
            "of a record that is not committed yet": (
                scope is not None and exists and at >= scope.limit
            ),
            "of a record that compaction may have removed": (
                exists and origin.topic in self._compacted
            ),
        }
        return next((f"outcome {reason}" for reason, holds in reasons.items() if holds), "")
