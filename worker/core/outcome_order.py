"""Checks that outcomes keep the order of their records, for the audit's ledger.

Owns: the highest and the lowest record with an outcome, by partition, and outcomes that are late.
    From them it tells which records may have had an outcome that was removed.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.core.records import Partition
from worker.core.replay_outcomes import Kind

EXAMPLES = 10  # of each offence


class Outlet(NamedTuple):
    """A topic of outcomes, with the kind of those that are read as such."""

    kind: Kind
    topic: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.topic}".rstrip()


Removed = Mapping[tuple[Outlet, Partition], bool]  # see `Ledger.report`


class OutcomeOrder:
    """The order of first outcomes, each kind in each topic.

    Only the first outcome of a record is checked: after a crash the worker resumes below its
    highest outcome, and the repeats are duplicates, not reordered.
    """

    def __init__(self) -> None:
        self._sequences: dict[tuple[Outlet, int, Partition], _Sequence] = {}
        self._lowest: dict[tuple[Outlet, Partition], int] = {}
        self._late: dict[tuple[Outlet, Partition, bool], Offenders] = defaultdict(Offenders)

    def add(self, outlet: Outlet, partition: int, origin: Partition, at: int) -> None:
        """Add the first outcome of a record in a topic.

        Args:
            outlet: kind and topic of the outcome.
            partition: of the outcome.
            origin: partition of the record.
            at: offset of the record.
        """
        lowest = self._lowest.get((outlet, origin), at)
        self._lowest[outlet, origin] = min(at, lowest)
        sequence = self._sequences.setdefault((outlet, partition, origin), _Sequence(at, at))
        if at >= sequence.highest:
            sequence.highest = at
            return
        self._late[outlet, origin, at < sequence.first].add(
            f"{place(origin, at)} after offset {sequence.highest} in {outlet} {partition}"
        )

    def lowest(self, outlet: Outlet, origin: Partition, default: int) -> int:
        """Return the lowest offset with an outcome in this topic."""
        return self._lowest.get((outlet, origin), default)

    def first(self, origin: Partition, default: int) -> int:
        """Return the lowest offset with a result, a note or a dead letter in any topic."""
        return min(
            (
                at
                for (outlet, other), at in self._lowest.items()
                if other == origin and outlet.kind != "copy"
            ),
            default=default,
        )

    def floor(
        self, partition: Partition, limit: int, removed: Removed, *, late: bool
    ) -> tuple[int, str]:
        """Return the offset below which a record without an outcome proves nothing, and why.

        Args:
            partition: of the input.
            limit: offset after the last record that is judged.
            removed: as for `Ledger.report`.
            late: whether the group may have begun after the start of the input.
        """
        floor, reason = 0, ""
        for (outlet, origin), anywhere in removed.items():
            if origin == partition and outlet.kind != "copy":
                # Outcomes have the order of their records: the removed ones belong to records
                # before the first remaining one.
                first = limit if anywhere else self.lowest(outlet, partition, limit)
                if first > floor:
                    floor, reason = first, removed_reason(outlet.kind, compacted=anywhere)
        if late and (first := self.first(partition, limit)) > floor:
            floor, reason = first, "record before the group's first outcome"
        return floor, reason

    def late(self, removed: Removed, shown: list[str], unjudged: Counter[str]) -> int:
        """Count outcomes after a later record's, except those that may be repeats.

        For example, retention removed results 0 to 7 of 0..9, and a crash repeated 5 to 9. Now 8 is
        the first result, and lower ones had a first copy before it. Compaction keeps only the last
        copy of a key, so the first one may have been anywhere.

        Args:
            removed: as for `Ledger.report`.
            shown: takes examples.
            unjudged: takes the number of those that may be repeats.
        """
        reordered = 0
        for (outlet, origin, early), late in self._late.items():
            anywhere = removed.get((outlet, origin))
            if anywhere or (anywhere is False and early):
                unjudged["outcome whose first copy may have been removed"] += late.number
                continue
            reordered += late.number
            shown += late.examples[: EXAMPLES - len(shown)]
        return reordered


@dataclass(slots=True)
class _Sequence:
    """The outcomes of an input partition in a partition of a topic, by their records' offsets."""

    first: int
    highest: int


@dataclass(slots=True)
class Offenders:
    """Outcomes that break a promise: their number, and a few examples."""

    number: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Add one."""
        self.number += 1
        if self.number <= EXAMPLES:
            self.examples.append(example)


def place(partition: Partition, offset: int) -> str:
    """Return a record's coordinates, as examples show them."""
    return f"{partition.topic}/{partition.partition}/{offset}"


def removed_reason(kind: Kind, *, compacted: bool = False) -> str:
    """Return why a record without an outcome of this kind may have had one."""
    return f"record whose {kind} " + (
        "compaction may have removed" if compacted else "may have been removed"
    )
