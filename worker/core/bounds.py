"""Decides where a worker begins and ends that labels only a range of its input.

The range of each partition is stored once, as the metadata of the group's committed offset (its
*note*), by the first worker to which the group assigns the partition. The group fences that commit
like any other. So every worker of the group, and every later one, finds the same range, and an end
such as `now` is the same moment after a crash. Each commit repeats the note.

Owns: the range of each partition, as far as it is known.
Thread: poll; the client's IO thread learns, and the publish thread reads notes. Each entry is
replaced whole.
Must not import: anything but core.records and errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from worker.core.records import Partition
from worker.errors import Fatal


class Bound(NamedTuple):
    """The range of one partition.

    Attributes:
        start: the first offset.
        end: the offset after the last one.
        lost: offsets of the range that were deleted before they were read.
        span: the range as it was given on the command line.
    """

    start: int
    end: int
    lost: int = 0
    span: str = ""

    def note(self) -> str:
        """Return the note."""
        range_ = {"span": self.span, "start": self.start, "end": self.end}
        return json.dumps(
            {"streamlabel_range": range_ | ({"lost": self.lost} if self.lost else {})}
        )


def read_note(note: str | None) -> Bound | None:
    """Return the range in a note; None if it has none."""
    try:
        range_ = json.loads(note or "")["streamlabel_range"]
        return Bound(
            int(range_["start"]), int(range_["end"]), int(range_.get("lost", 0)), range_["span"]
        )
    except (ValueError, KeyError, TypeError):
        return None


class RangeProgress(NamedTuple):
    """How far a group is with its range.

    Attributes:
        done, total: offsets.
        lost: offsets that were deleted before they were read; `done` counts them too.
        unknown: partitions whose range is not chosen yet, so that `total` may grow.
    """

    done: int
    total: int
    lost: int
    unknown: int

    @property
    def finished(self) -> bool:
        """True once nothing is left to label."""
        return not self.unknown and self.done == self.total


def progress_of(
    partitions: Iterable[Partition], committed: Mapping[Partition, tuple[int, str]]
) -> RangeProgress:
    """Return how far a group is.

    Args:
        partitions: all that the group reads.
        committed: the group's offsets and their notes.
    """
    done = total = lost = unknown = 0
    for partition in partitions:
        offset, note = committed.get(partition, (0, ""))
        if (bound := read_note(note)) is None:
            unknown += 1
            continue
        total += bound.end - bound.start
        done += min(offset, bound.end) - bound.start
        lost += bound.lost
    return RangeProgress(done, total, lost, unknown)


class Bounds:
    """The ranges of a group's partitions.

    Args:
        span: the range as it was given. A group has only one.
        group: names the group in errors.
    """

    def __init__(self, span: str, group: str) -> None:
        self.span, self._group = span, group
        self._bounds: dict[Partition, Bound] = {}
        self._faults: dict[Partition, str] = {}

    def begin(self, partition: Partition, start: int, end: int) -> None:
        """Choose a range, unless there is one already."""
        self._bounds.setdefault(partition, Bound(start, max(start, end), 0, self.span))

    def learn(self, partition: Partition, note: str | None) -> None:
        """Take over the range that the group has stored."""
        bound = read_note(note)
        if bound is None or bound.span != self.span:
            self._faults[partition] = _fault(self._group, partition, self.span, bound)
            return
        self._faults.pop(partition, None)
        known = self._bounds.get(partition)
        lost = max(bound.lost, known.lost) if known else bound.lost
        self._bounds[partition] = bound._replace(lost=lost)

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._bounds

    def __getitem__(self, partition: Partition) -> Bound:
        """Return a partition's range.

        Raises:
            Fatal: the group's offset has another range, or none.
        """
        if fault := self._faults.get(partition):
            raise Fatal(fault)
        return self._bounds[partition]

    def note(self, partition: Partition) -> str:
        """Return the note of each commit."""
        return self._bounds[partition].note()

    def clip(self, partition: Partition, offset: int) -> int:
        """Return the offset, or the end of the range if that is lower."""
        bound = self._bounds.get(partition)
        return min(offset, bound.end) if bound else offset

    def lose(self, partition: Partition, offsets: range) -> range:
        """Count offsets that were deleted before they were read; return those of the range."""
        bound = self[partition]
        lost = range(min(offsets.start, bound.end), min(offsets.stop, bound.end))
        self._bounds[partition] = bound._replace(lost=bound.lost + len(lost))
        return lost

    def reached(self, partitions: Iterable[Partition], committed: Mapping[Partition, int]) -> bool:
        """Return whether the group has committed each of these partitions up to its end."""
        return all(
            partition in committed and committed[partition] >= self[partition].end
            for partition in partitions
        )


def _fault(group: str, partition: Partition, span: str, bound: Bound | None) -> str:
    name = f"{partition.topic}[{partition.partition}]"
    if bound is None:
        return (
            f"group {group!r} has an offset of {name} that belongs to no range, so it is not a "
            "group of a backfill: choose another --group-id"
        )
    return (
        f"group {group!r} labels the range {bound.span}, not {span}: repeat the command with its "
        "--from and --to, or choose another --group-id"
    )
