"""The audit's ledger: matches input records with their outcomes, and counts broken promises.

Call it in this order: `record` for every input record, `set_starts`, `outcome` for every outcome of
each topic in the order of its partitions, `report`.

Owns: the state of every input record that is judged.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from worker.core.audit_report import AuditReport, Offence
from worker.core.cells import Cells
from worker.core.records import Partition

Kind = Literal["result", "dead_letter"]
Source = tuple[str, int, int]  # topic, partition, offset of an input record
Removed = Mapping[tuple[Kind, Partition], bool]  # see `Ledger.report`

_RECORD = 1  # the input has a record at this offset
_FLAGS: dict[Kind, int] = {"result": 2, "dead_letter": 4}  # the record has an outcome of this kind
_ANY_OUTCOME = 6

_EXAMPLES = 10  # of each offence


@dataclass(frozen=True, slots=True)
class Scope:
    """The offsets of one input partition that are judged.

    Attributes:
        start: records below this offset are not judged.
        limit: records from `start` on and below this offset must have an outcome.
        end: end of the partition, read after the ends of the outcomes' topics: no outcome can
            belong to this offset or a later one.
        range_end: end of the range that the group labels; None if it has none.
    """

    limit: int
    end: int
    start: int = 0
    range_end: int | None = None

    def outside(self, offset: int) -> bool:
        """Return whether an offset is not in the range that the group labels."""
        return offset < self.start or (self.range_end is not None and offset >= self.range_end)

    @property
    def pending(self) -> range:
        """The offsets that a later audit will judge."""
        last = self.end if self.range_end is None else self.range_end
        return range(max(self.limit, self.start), max(self.limit, self.start, last))


class Ledger:
    """Matches records with outcomes.

    Args:
        scopes: scope of each input partition.
        compacted: input topics that compaction removes records from, so that an outcome without a
            record proves nothing.
    """

    def __init__(
        self, scopes: Mapping[Partition, Scope], *, compacted: Collection[str] = ()
    ) -> None:
        self._scopes = scopes
        self._compacted = compacted
        self._topics = {partition.topic for partition in scopes}
        self._nonempty = {partition.topic for partition, scope in scopes.items() if scope.end}
        self._cells = {partition: Cells() for partition in scopes}
        self._starts: dict[Partition, int] = {}
        self._earliest_ms: dict[str, int] = {}  # by input topic
        self._counts: Counter[str] = Counter()
        self._unjudged: Counter[str] = Counter()
        self._examples: dict[Offence, list[str]] = defaultdict(list)
        self._sequences: dict[tuple[Kind, int, Partition], _Sequence] = {}
        self._lowest: dict[tuple[Kind, Partition], int] = {}
        self._late: dict[tuple[Kind, Partition, bool], _Late] = defaultdict(_Late)

    def record(self, partition: Partition, offset: int, timestamp_ms: int = 0) -> None:
        """Add a record of the input."""
        scope = self._scopes[partition]
        if scope.start <= offset < scope.limit:
            self._cells[partition][offset] = _RECORD
            earliest_ms = self._earliest_ms.get(partition.topic, timestamp_ms)
            self._earliest_ms[partition.topic] = min(earliest_ms, timestamp_ms)

    def set_starts(self, starts: Mapping[Partition, int]) -> None:
        """Set the start offset of each partition, read after the partition's records.

        With starts that were read before, the outcomes of records that retention removes in the
        meantime would look like orphans.
        """
        self._starts = dict(starts)

    def foreign(self) -> None:
        """Add a record without coordinates from a topic of outcomes."""
        self._skip("record without coordinates, of another producer")

    def outcome(
        self, kind: Kind, partition: int, offset: int, source: Source | None, timestamp_ms: int = 0
    ) -> bool:
        """Add an outcome, and return whether it is the first of its record.

        Args:
            kind: result or dead letter, each in its own topic.
            partition: partition of the outcome in that topic.
            offset: offset of the outcome in that topic.
            source: coordinates of its input record; None if they can't be read.
            timestamp_ms: timestamp of its input record, as stated in the outcome.
        """
        if source is None:
            return self._orphan(kind, partition, offset, "unreadable coordinates")
        if source[0] not in self._topics:
            return self._skip("outcome of another input topic")
        origin, at = Partition(source[0], source[1]), source[2]
        cells, older = self._cells.get(origin), self._is_older(origin.topic, timestamp_ms)
        flags = cells[at] if cells else 0
        if cells is None or not flags or older:
            return self._unknown(kind, partition, offset, source, older=older)
        cells[at] = flags | _FLAGS[kind]
        if not flags & _FLAGS[kind]:
            self._check_order(kind, partition, origin, at)
        if flags & _ANY_OUTCOME:
            self._note("duplicated", f"{_text(origin, at)} again as {kind} {partition}/{offset}")
            return False
        self._counts[kind] += 1
        return True

    def _is_older(self, topic: str, timestamp_ms: int) -> bool:
        """Return whether no record of the input topic can have this timestamp.

        A topic that is deleted and created again restarts at offset 0. Outcomes of the deleted
        topic's records have coordinates of the new topic's records, or of none. Only their
        timestamps differ.
        """
        if topic not in self._earliest_ms:
            return topic not in self._nonempty
        return timestamp_ms < self._earliest_ms[topic]

    def _check_order(self, kind: Kind, partition: int, origin: Partition, at: int) -> None:
        # Only the first outcome of a record is checked: after a crash the worker resumes below its
        # highest outcome, and the repeats are duplicates, not reordered.
        lowest = self._lowest.get((kind, origin), at)
        self._lowest[kind, origin] = min(at, lowest)
        sequence = self._sequences.setdefault((kind, partition, origin), _Sequence(at, at))
        if at >= sequence.highest:
            sequence.highest = at
            return
        self._late[kind, origin, at < sequence.first].add(
            f"{_text(origin, at)} after offset {sequence.highest} in {kind} {partition}"
        )

    def _unknown(
        self, kind: Kind, partition: int, offset: int, source: Source, *, older: bool
    ) -> bool:
        """Add an outcome without a known record."""
        origin, at = Partition(source[0], source[1]), source[2]
        if reason := self._why_unjudged(origin, at, older=older):
            return self._skip(reason)
        return self._orphan(kind, partition, offset, _text(origin, at))

    def _why_unjudged(self, origin: Partition, at: int, *, older: bool) -> str:
        """Return why an outcome without a known record proves nothing; empty for an orphan."""
        scope = self._scopes.get(origin)
        exists = scope is not None and at < scope.end
        if scope is not None and exists and scope.outside(at):
            return "outcome of a record outside the range"
        if at < self._starts.get(origin, 0):
            return "outcome of a record that retention has removed"
        if older:
            return "outcome of an older topic of this name"
        if scope is not None and exists and at >= scope.limit:
            return "outcome of a record that is not committed yet"
        if exists and origin.topic in self._compacted:
            return "outcome of a record that compaction may have removed"
        return ""

    def _orphan(self, kind: Kind, partition: int, offset: int, claim: str) -> bool:
        self._note("orphans", f"{kind} {partition}/{offset}: {claim}")
        return False

    def _skip(self, reason: str) -> bool:
        self._unjudged[reason] += 1
        return False

    def _note(self, offence: Offence, example: str) -> None:
        self._counts[offence] += 1
        if len(self._examples[offence]) < _EXAMPLES:
            self._examples[offence].append(example)

    def report(self, removed: Removed | None = None, *, late: bool = False) -> AuditReport:
        """Return the findings.

        Args:
            removed: (kind, input partition) of outcomes that were removed from their topic: True if
                anywhere in it (compaction), False if from its beginning (retention).
            late: whether the group may have begun after the start of the input
                (`input.start = "latest"`).
        """
        removed = removed or {}
        examples, unjudged = dict(self._examples), Counter(self._unjudged)
        missing = self._missing(removed, late, examples, unjudged)
        reordered = self._reordered(removed, examples, unjudged)
        published, dead_lettered = self._counts["result"], self._counts["dead_letter"]
        return AuditReport(
            consumed=published + dead_lettered + missing,
            published=published,
            dead_lettered=dead_lettered,
            missing=missing,
            duplicated=self._counts["duplicated"],
            reordered=reordered,
            orphans=self._counts["orphans"],
            pending=sum(self._pending(partition) for partition in self._scopes),
            unjudged=dict(unjudged),
            examples=examples,
        )

    def _missing(
        self,
        removed: Removed,
        late: bool,
        examples: dict[Offence, list[str]],
        unjudged: Counter[str],
    ) -> int:
        missing = 0
        for partition, cells in self._cells.items():
            floor, reason = self._floor(partition, removed, late=late)
            for offset in cells.find(_RECORD):  # without any outcome
                if offset < floor:
                    unjudged[reason] += 1
                    continue
                missing += 1
                if missing <= _EXAMPLES:
                    examples.setdefault("missing", []).append(_text(partition, offset))
        return missing

    def _reordered(
        self, removed: Removed, examples: dict[Offence, list[str]], unjudged: Counter[str]
    ) -> int:
        """Count outcomes after a later record's, except those that may be repeats.

        For example, retention removed results 0 to 7 of 0..9, and a crash repeated 5 to 9. Now 8 is
        the first result, and lower ones had a first copy before it. Compaction keeps only the last
        copy of a key, so the first one may have been anywhere.
        """
        reordered = 0
        for (kind, origin, early), late in self._late.items():
            anywhere = removed.get((kind, origin))
            if anywhere or (anywhere is False and early):
                unjudged["outcome whose first copy may have been removed"] += late.number
                continue
            reordered += late.number
            shown = examples.setdefault("reordered", [])
            shown += late.examples[: _EXAMPLES - len(shown)]
        return reordered

    def _pending(self, partition: Partition) -> int:
        pending = self._scopes[partition].pending
        return max(0, pending.stop - max(pending.start, self._starts.get(partition, 0)))

    def _floor(self, partition: Partition, removed: Removed, *, late: bool) -> tuple[int, str]:
        """Return the offset below which a record without an outcome proves nothing, and why."""
        limit = self._scopes[partition].limit
        floor, reason = 0, ""
        for kind in _FLAGS:
            anywhere = removed.get((kind, partition))
            if anywhere is not None:
                # Outcomes have the order of their records: the removed ones belong to records
                # before the first remaining one.
                first = limit if anywhere else self._lowest.get((kind, partition), limit)
                if first > floor:
                    floor, reason = first, f"record whose {kind} may have been removed"
        if late:
            firsts = [self._lowest.get((kind, partition), limit) for kind in _FLAGS]
            if min(firsts) > floor:
                floor, reason = min(firsts), "record before the group's first outcome"
        return floor, reason


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
        if self.number <= _EXAMPLES:
            self.examples.append(example)


def _text(partition: Partition, offset: int) -> str:
    return f"{partition.topic}/{partition.partition}/{offset}"
