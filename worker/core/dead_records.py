"""The input records that a replay may stand in for: those that became dead letters.

Any producer may write the header of a replay, so the audit believes it only of a record whose dead
letter it has read, or whose dead letter may have been removed.

Owns: the records of the dead letters.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.

Call it in this order: `add` for every dead letter, `removed_from`, `record` for every input record.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from worker.core.records import Partition
from worker.core.replay_outcomes import Source
from worker.core.scope import Scope


class DeadRecords:
    """Knows which input records became dead letters. It takes about 150 bytes each.

    Args:
        scopes: scope of each input partition.
    """

    def __init__(self, scopes: Mapping[Partition, Scope]) -> None:
        self._ends = {partition: scope.end for partition, scope in scopes.items()}
        self._timestamps: defaultdict[Partition, dict[int, int]] = defaultdict(dict)
        self._removed: Collection[Partition] = ()

    def add(self, source: Source, timestamp_ms: int) -> None:
        """Add the record of a dead letter, with its timestamp as the dead letter states it."""
        partition, offset = Partition(*source[:2]), source[2]
        if offset < self._ends.get(partition, 0):
            self._timestamps[partition][offset] = timestamp_ms

    def removed_from(self, partitions: Collection[Partition]) -> None:
        """Name the input partitions of which dead letters may have been removed."""
        self._removed = frozenset(partitions)

    def record(self, partition: Partition, offset: int, timestamp_ms: int) -> None:
        """Drop the dead letter of an older topic's record at the place of this one.

        A record without a timestamp (below 0) has any.
        """
        known = self._timestamps.get(partition)
        if known and timestamp_ms >= 0 and known.get(offset, timestamp_ms) != timestamp_ms:
            del known[offset]

    def __contains__(self, source: Source) -> bool:
        """Return whether a record became a dead letter, or may have become one."""
        partition = Partition(*source[:2])
        return partition in self._removed or source[2] in self._timestamps.get(partition, ())
