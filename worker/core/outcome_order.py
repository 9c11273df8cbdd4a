"""Checks that outcomes keep the order of their records, for the audit's ledger.

Owns: the highest and the lowest record with an outcome, by partition, and outcomes that are late.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.core.records import Partition
from worker.core.replay_outcomes import Kind

EXAMPLES = 10  # of each offence

Removed = Mapping[tuple[Kind, Partition], bool]  # see `Ledger.report`


class OutcomeOrder:
    """The order of first outcomes, each kind in its own topic.

    Only the first outcome of a record is checked: after a crash the worker resumes below its
    highest outcome, and the repeats are duplicates, not reordered.
    """

    def __init__(self) -> None:
        self._sequences: dict[tuple[Kind, int, Partition], _Sequence] = {}
        self._lowest: dict[tuple[Kind, Partition], int] = {}
        self._late: dict[tuple[Kind, Partition, bool], _Late] = defaultdict(_Late)

    def add(self, kind: Kind, partition: int, origin: Partition, at: int) -> None:
        """Add the first outcome of this kind of a record.

        Args:
            kind: result or dead letter.
            partition: of the outcome.
            origin: partition of the record.
            at: offset of the record.
        """
        lowest = self._lowest.get((kind, origin), at)
        self._lowest[kind, origin] = min(at, lowest)
        sequence = self._sequences.setdefault((kind, partition, origin), _Sequence(at, at))
        if at >= sequence.highest:
            sequence.highest = at
            return
        self._late[kind, origin, at < sequence.first].add(
            f"{place(origin, at)} after offset {sequence.highest} in {kind} {partition}"
        )

    def lowest(self, kind: Kind, origin: Partition, default: int) -> int:
        """Return the lowest offset with an outcome of this kind."""
        return self._lowest.get((kind, origin), default)

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
        for (kind, origin, early), late in self._late.items():
            anywhere = removed.get((kind, origin))
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
class _Late:
    """Outcomes that follow an outcome of a later record."""

    number: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.number += 1
        if self.number <= EXAMPLES:
            self.examples.append(example)


def place(partition: Partition, offset: int) -> str:
    """Return a record's coordinates, as examples show them."""
    return f"{partition.topic}/{partition.partition}/{offset}"
