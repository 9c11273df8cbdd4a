"""The audit's ledger: what the input held, what came of it, and which promises that keeps.

Pure; the thread of `streamlabel audit` owns it. Imports no third party and no other room.

Feed it in this order: every input record, then `kept_from`, then every outcome of each topic in
the order of its partitions, then ask for the `report`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from worker.core.audit_report import AuditReport, Offence
from worker.core.cells import Cells

Kind = Literal["result", "dead_letter"]
Source = tuple[str, int, int]  # topic, partition, offset of an input record
Gone = Mapping[tuple[Kind, int], bool]  # see `Ledger.report`

_RECORD = 1  # the input has a record at this offset
_FLAGS: dict[Kind, int] = {"result": 2, "dead_letter": 4}  # an outcome of this kind was seen
_ANY_OUTCOME = 6

_EXAMPLES = 10  # of each offence


@dataclass(frozen=True, slots=True)
class Scope:
    """How far one input partition is judged.

    Attributes:
        limit: records below this offset must have an outcome.
        end: the partition's end, read after the ends of the outcomes' topics: no outcome can
            come from there or beyond.
    """

    limit: int
    end: int


class Ledger:
    """Counts records and outcomes.

    Args:
        topic: the input topic.
        scopes: partition -> how far it is judged.
        compacted: records vanish from the middle of the input, so an outcome without a record
            is no proof of anything.
    """

    def __init__(self, topic: str, scopes: Mapping[int, Scope], *, compacted: bool = False) -> None:
        self._topic = topic
        self._scopes = scopes
        self._compacted = compacted
        self._cells = {partition: Cells() for partition in scopes}
        self._starts: dict[int, int] = {}
        self._empty = not any(scope.end for scope in scopes.values())
        self._earliest_ms: int | None = None
        self._counts: Counter[str] = Counter()
        self._unjudged: Counter[str] = Counter()
        self._examples: dict[Offence, list[str]] = defaultdict(list)
        self._lanes: dict[tuple[Kind, int, int], _Lane] = {}
        self._lowest: dict[tuple[Kind, int], int] = {}
        self._behind: dict[tuple[Kind, int, bool], _Behind] = defaultdict(_Behind)

    def record(self, partition: int, offset: int, timestamp_ms: int = 0) -> None:
        """The input has this record."""
        if offset < self._scopes[partition].limit:
            self._cells[partition][offset] = _RECORD
            if self._earliest_ms is None or timestamp_ms < self._earliest_ms:
                self._earliest_ms = timestamp_ms

    def kept_from(self, starts: Mapping[int, int]) -> None:
        """Where each partition starts, asked after its records were read.

        Asked before, records that retention removes meanwhile would look like orphans' sources.
        """
        self._starts = dict(starts)

    def foreign(self) -> None:
        """A topic of outcomes has a record that claims to be none."""
        self._skip("record without coordinates, of another producer")

    def outcome(
        self, kind: Kind, partition: int, offset: int, source: Source | None, timestamp_ms: int = 0
    ) -> bool:
        """An outcome at `partition` and `offset` of its topic; whether it is its record's first.

        Args:
            kind: of which topic.
            partition: where it lies there.
            offset: likewise.
            source: the record that it says it came of; None where that can't be read.
            timestamp_ms: that record's, as the outcome has it.
        """
        if source is None:
            return self._orphan(kind, partition, offset, "unreadable coordinates")
        topic, origin, at = source
        if topic != self._topic:
            return self._skip("outcome of another input topic")
        cells, older = self._cells.get(origin), self._older(timestamp_ms)
        seen = cells[at] if cells else 0
        if cells is None or not seen or older:
            return self._unknown(kind, partition, offset, source, older=older)
        cells[at] = seen | _FLAGS[kind]
        if not seen & _FLAGS[kind]:
            self._check_order(kind, partition, origin, at)
        if seen & _ANY_OUTCOME:
            self._note("duplicated", f"{_at(source)} again as {kind} {partition}/{offset}")
            return False
        self._counts[kind] += 1
        return True

    def _older(self, timestamp_ms: int) -> bool:
        """Whether no record of the input can have had this timestamp.

        A topic that is deleted and made anew begins at offset 0 again. What came of the old one's
        records has the coordinates of the new one's, or of none: only the timestamps tell.
        """
        if self._earliest_ms is None:
            return self._empty
        return timestamp_ms < self._earliest_ms

    def _check_order(self, kind: Kind, partition: int, origin: int, at: int) -> None:
        # Only what is seen for the first time is judged: after a crash the worker begins again
        # below its highest outcome, and those repeats are duplicates, not disorder.
        lowest = self._lowest.get((kind, origin), at)
        self._lowest[kind, origin] = min(at, lowest)
        lane = self._lanes.setdefault((kind, partition, origin), _Lane(at, at))
        if at >= lane.highest:
            lane.highest = at
            return
        source = _at((self._topic, origin, at))
        self._behind[kind, origin, at < lane.first].add(
            f"{source} after offset {lane.highest} in {kind} {partition}"
        )

    def _unknown(
        self, kind: Kind, partition: int, offset: int, source: Source, *, older: bool
    ) -> bool:
        """An outcome of which the ledger has no record."""
        _, origin, at = source
        scope = self._scopes.get(origin)
        if at < self._starts.get(origin, 0):
            return self._skip("outcome of a record that retention has removed")
        if older:
            return self._skip("outcome of an older topic of this name")
        if scope is None or at >= scope.end:
            return self._orphan(kind, partition, offset, _at(source))
        if at >= scope.limit:
            return self._skip("outcome of a record that is not committed yet")
        if self._compacted:
            return self._skip("outcome of a record that compaction may have removed")
        return self._orphan(kind, partition, offset, _at(source))

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

    def report(self, gone: Gone | None = None, *, late: bool = False) -> AuditReport:
        """Everything that was found.

        Args:
            gone: (kind, input partition) for which outcomes were removed from their topic:
                True all along (compaction), False from its beginning (retention).
            late: the group may have begun behind the input's start (`input.start = "latest"`).
        """
        gone = gone or {}
        examples, unjudged = dict(self._examples), Counter(self._unjudged)
        missing = self._missing(gone, late, examples, unjudged)
        reordered = self._reordered(gone, examples, unjudged)
        published, dead = self._counts["result"], self._counts["dead_letter"]
        return AuditReport(
            consumed=published + dead + missing,
            published=published,
            dead_lettered=dead,
            missing=missing,
            duplicated=self._counts["duplicated"],
            reordered=reordered,
            orphans=self._counts["orphans"],
            pending=sum(self._pending(partition) for partition in self._scopes),
            unjudged=dict(unjudged),
            examples=examples,
        )

    def _missing(
        self, gone: Gone, late: bool, examples: dict[Offence, list[str]], unjudged: Counter[str]
    ) -> int:
        missing = 0
        for partition, cells in self._cells.items():
            floor, why = self._floor(partition, gone, late=late)
            for offset in cells.find(_RECORD):  # this flag alone
                if offset < floor:
                    unjudged[why] += 1
                    continue
                missing += 1
                if missing <= _EXAMPLES:
                    found = examples.setdefault("missing", [])
                    found.append(_at((self._topic, partition, offset)))
        return missing

    def _reordered(
        self, gone: Gone, examples: dict[Offence, list[str]], unjudged: Counter[str]
    ) -> int:
        """Outcomes behind a later record's, but for those that may be repeats.

        Retention took results 0 to 7 of 0..9, and then came, after a crash, 5 to 9 once more: now
        8 is the first one, and what lies below it had a first copy before it. Compaction keeps the
        last copy of a key alone, wherever the first one was.
        """
        reordered = 0
        for (kind, origin, early), behind in self._behind.items():
            everywhere = gone.get((kind, origin))
            if everywhere or (everywhere is False and early):
                unjudged["outcome whose first copy may have been removed"] += behind.number
                continue
            reordered += behind.number
            found = examples.setdefault("reordered", [])
            found += behind.examples[: _EXAMPLES - len(found)]
        return reordered

    def _pending(self, partition: int) -> int:
        scope = self._scopes[partition]
        return max(0, scope.end - max(scope.limit, self._starts.get(partition, 0)))

    def _floor(self, partition: int, gone: Gone, *, late: bool) -> tuple[int, str]:
        """Below it, a record without an outcome proves nothing; and why."""
        limit = self._scopes[partition].limit
        floor, why = 0, ""
        for kind in _FLAGS:
            everywhere = gone.get((kind, partition))
            if everywhere is not None:
                # Outcomes lie in the order of their records: what was removed from the front
                # belongs to records before the first one that is left.
                first = limit if everywhere else self._lowest.get((kind, partition), limit)
                if first > floor:
                    floor, why = first, f"record whose {kind} may have been removed"
        if late:
            firsts = [self._lowest.get((kind, partition), limit) for kind in _FLAGS]
            if min(firsts) > floor:
                floor, why = min(firsts), "record before the group's first outcome"
        return floor, why


@dataclass(slots=True)
class _Lane:
    """The outcomes of one input partition in one partition of a topic: offsets of their records."""

    first: int
    highest: int


@dataclass(slots=True)
class _Behind:
    """Outcomes that came after one of a later record."""

    number: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.number += 1
        if self.number <= _EXAMPLES:
            self.examples.append(example)


def _at(source: Source) -> str:
    topic, partition, offset = source
    return f"{topic}/{partition}/{offset}"
