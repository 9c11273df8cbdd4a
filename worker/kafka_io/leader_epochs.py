"""Remembers under which leader each record was written.

Owns: the epochs of the leaders, by partition.
Thread: poll notes, any thread asks. A partition's epochs are one tuple that is replaced whole, so
no lock is needed.
Must not import: inference, runtime.

A leader that lacks records, and is elected all the same, writes others at their offsets. So an
offset says where a group is only together with the epoch of the leader that wrote the record before
it. The group's offsets are committed with that epoch, and a worker that begins at one compares it
with the log. https://cwiki.apache.org/confluence/display/KAFKA/KIP-320
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from worker.core.records import Partition

UNKNOWN: Final = -1
_MOST = 16  # epochs of a partition; earlier ones are forgotten


def unknown_epoch(partition: Partition, offset: int) -> int:  # noqa: ARG001
    """Return UNKNOWN, for any record."""
    return UNKNOWN


class LeaderEpochs:
    """The epochs of the leaders that wrote the records of some partitions."""

    def __init__(self) -> None:
        self._begun: dict[Partition, tuple[tuple[int, int], ...]] = {}  # offset, epoch

    def note(self, polled: Mapping[Any, Sequence[Any]]) -> None:
        """Take the records that the client returned, by partition in the order of their offsets."""
        for tp, records in polled.items():
            if records[0].leader_epoch == records[-1].leader_epoch:  # they never fall in a log
                self._note(Partition(*tp), records[0])
            else:
                for record in records:
                    self._note(Partition(*tp), record)

    def reach(self, positions: Mapping[Any, Any]) -> None:
        """Take the client's positions, which have the epochs of the batches before them.

        Between a position and the last record that the client returned there may be others, of a
        later leader: markers, aborted records, and holes that compaction left.
        """
        for tp, at in positions.items():
            partition, last = Partition(*tp), (at.offset - 1, at.leader_epoch)
            begun = self._begun.get(partition, ((-1, UNKNOWN),))
            if begun[-1][0] < last[0] and begun[-1][1] < last[1]:
                self._begun[partition] = (*begun[1 - _MOST :], last)

    def of(self, partition: Partition, offset: int) -> int:
        """Return the epoch of the leader that wrote this record, or UNKNOWN."""
        begun = self._begun.get(partition, ())
        return next((epoch for first, epoch in reversed(begun) if first <= offset), UNKNOWN)

    def _note(self, partition: Partition, record: Any) -> None:
        offset, epoch = record.offset, record.leader_epoch
        begun = self._begun.get(partition, ())
        if begun and begun[-1][1] == epoch and begun[-1][0] <= offset:
            return
        # Records at later offsets are of another log, or will be read again.
        earlier = tuple(one for one in begun if one[0] < offset)
        if not earlier or earlier[-1][1] != epoch:
            self._begun[partition] = (*earlier[1 - _MOST :], (offset, epoch))
        else:
            self._begun[partition] = earlier
