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
        span: the `Span.name` of the range that was given on the command line.
        lost_to: the offset after the last one that was counted as lost. The log loses its beginning
            only, so a gap that is read again is counted only from there on.
        at_ms: when the places of the range were read, ms since 1970 UTC; 0 if unknown.
    """

    start: int
    end: int
    lost: int = 0
    span: str = ""
    lost_to: int = 0
    at_ms: int = 0

    def note(self) -> str:
        """Return the note."""
        range_ = {"span": self.span, "start": self.start, "end": self.end}
        more = {"lost": self.lost, "lost_to": self.lost_to, "at_ms": self.at_ms}
        return json.dumps({"streamlabel_range": range_ | {k: v for k, v in more.items() if v}})


def read_note(note: str | None) -> Bound | None:
    """Return the range in a note, or None for any other text."""
    try:
        range_ = json.loads(note or "")["streamlabel_range"]
        lost, *rest = (int(range_.get(name, 0)) for name in ("lost", "lost_to", "at_ms"))
        return Bound(int(range_["start"]), int(range_["end"]), lost, range_["span"], *rest)
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
        span: the `Span.name` of the range. A group has only one.
        group: names the group in errors.
    """

    def __init__(self, span: str, group: str) -> None:
        self.span, self._group = span, group
        self._bounds: dict[Partition, Bound] = {}
        self._faults: dict[Partition, str] = {}

    def begin(self, partition: Partition, start: int, end: int, at_ms: int = 0) -> None:
        """Choose a range, unless there is one already."""
        bound = Bound(start, max(start, end), span=self.span, at_ms=at_ms)
        self._bounds.setdefault(partition, bound)

    def learn(self, partition: Partition, note: str | None) -> None:
        """Take over the range that the group has stored."""
        bound = read_note(note)
        if bound is None or bound.span != self.span:
            self._faults[partition] = _fault(self._group, partition, self.span, bound)
            return
        self._faults.pop(partition, None)
        known = self._bounds.get(partition)
        if known and known.lost_to > bound.lost_to:  # counted, but not committed yet
            bound = bound._replace(lost=known.lost, lost_to=known.lost_to)
        self._bounds[partition] = bound

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
        """Count offsets that were deleted before they were read; return those of the range.

        An offset is counted once, also if the group reads from before the gap again.
        """
        bound = self[partition]
        lost = range(min(offsets.start, bound.end), min(offsets.stop, bound.end))
        if new := range(max(lost.start, bound.lost_to), lost.stop):
            self._bounds[partition] = bound._replace(lost=bound.lost + len(new), lost_to=new.stop)
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
