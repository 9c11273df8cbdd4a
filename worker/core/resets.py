"""Plans a reset of a group's offsets: what changes, and what it repeats or skips.

Owns: the plan's arithmetic; the file of offsets.
Thread: main; pure.
Must not import: anything but core and errors.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from worker.core.bounds import read_note
from worker.core.records import Partition
from worker.errors import ArgumentsError

HEADER = ("topic", "partition", "offset")


@dataclass(frozen=True, slots=True)
class Place:
    """One partition as it is.

    Attributes:
        start, end: of its log.
        committed: the group's offset; None without one.
        note: the metadata of that offset.
    """

    partition: Partition
    start: int
    end: int
    committed: int | None
    note: str = ""

    @property
    def kept_note(self) -> str:
        """The note of another offset: that of a range. A topic's id holds for one offset only."""
        return self.note if read_note(self.note) else ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The change of one partition's offset.

    Attributes:
        place: as it is.
        wanted: the offset that was asked for.
        after: the offset to commit: `wanted`, moved into the log.
    """

    place: Place
    wanted: int
    after: int

    @property
    def changes(self) -> bool:
        """False if the group has this offset already."""
        return self.after != self.place.committed

    @property
    def repeated(self) -> int:
        """Offsets that were committed and will be read again."""
        before = self.place.committed
        return 0 if before is None else max(0, min(before, self.place.end) - self.after)

    @property
    def skipped(self) -> int:
        """Offsets in the log that were not committed and will not be read."""
        before = self.place.committed
        return 0 if before is None else max(0, self.after - max(before, self.place.start))


def plan(places: Iterable[Place], wanted: Mapping[Partition, int]) -> list[Reset]:
    """Return the change of each partition for which an offset is wanted."""
    return [
        Reset(p, wanted[p.partition], min(max(wanted[p.partition], p.start), p.end))
        for p in places
        if p.partition in wanted
    ]


def outdated(resets: Iterable[Reset], now: Iterable[Place]) -> list[Partition]:
    """Return the partitions in which a plan no longer says what a reset changes.

    The group has another offset or note there, or the log does not reach to the new offset.
    """
    places = {place.partition: place for place in now}
    return [
        reset.place.partition
        for reset in resets
        if not _holds(reset, places.get(reset.place.partition))
    ]


def _holds(reset: Reset, now: Place | None) -> bool:
    before = reset.place
    return (
        now is not None
        and (now.committed, now.note) == (before.committed, before.note)
        and now.start <= reset.after <= now.end
    )


def without_range(resets: Iterable[Reset], places: Iterable[Place]) -> list[Partition]:
    """Return the partitions that would get an offset without a range, in a group with ranges.

    Every later backfill would take such a group for another program's.
    """
    if not any(read_note(place.note) for place in places):
        return []
    return [r.place.partition for r in resets if r.place.committed is None]


def parse_file(text: str, group: str, partitions: Collection[Partition]) -> dict[Partition, int]:
    """Read offsets from CSV, as `offsets export` and kafka-consumer-groups.sh write them.

    Args:
        text: lines of `topic,partition,offset` or `group,topic,partition,offset`, with or without a
            header.
        group: the group that is reset; lines of another one are an error.
        partitions: those of the worker's inputs; lines of others are an error.

    Raises:
        ArgumentsError: names the first line that can't be used.
    """
    wanted: dict[Partition, int] = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or tuple(cells[-3:]) == HEADER or cells[-1].endswith("-offset"):
            continue
        partition, offset = _line(number, cells, group)
        if partition not in partitions:
            raise ArgumentsError(
                f"line {number}: {partition.topic}[{partition.partition}] is no partition of the "
                "input"
            )
        if partition in wanted:
            raise ArgumentsError(
                f"line {number}: {partition.topic}[{partition.partition}] has an offset already"
            )
        wanted[partition] = offset
    if not wanted:
        raise ArgumentsError("no line has an offset: expected topic,partition,offset")
    return wanted


def _line(number: int, cells: list[str], group: str) -> tuple[Partition, int]:
    if len(cells) == len(HEADER) + 1 and cells[0] != group:
        raise ArgumentsError(f"line {number} is of group {cells[0]!r}, not {group!r}")
    topic, *numbers = cells[-3:]
    if len(cells) not in (len(HEADER), len(HEADER) + 1) or not all(map(_is_number, numbers)):
        raise ArgumentsError(f"line {number}: expected topic,partition,offset")
    return Partition(topic, int(numbers[0])), int(numbers[1])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def shifted(places: Iterable[Place], by: int) -> dict[Partition, int]:
    """Return the committed offsets, moved.

    Raises:
        ArgumentsError: a partition has no committed offset.
    """
    places = list(places)
    if without := [p.partition for p in places if p.committed is None]:
        names = ", ".join(f"{p.topic}[{p.partition}]" for p in without)
        raise ArgumentsError(f"can't shift: no offset is committed of {names}")
    return {p.partition: (p.committed or 0) + by for p in places}
