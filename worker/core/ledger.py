"""The audit's ledger: what the input held, what came of it, and which promises that keeps.

Pure; the thread of `streamlabel audit` owns it. Imports no third party and no other room.

Memory is one byte for each offset, in pages that exist only where records do, so that a topic
whose offsets have gaps (compaction, transactions) costs what its records cost. A record that lies
all alone costs a page.

Feed it in this order: every input record, then `kept_from`, then every outcome of each topic in
the order of its partitions, then ask for the `report`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["result", "dead_letter"]
Source = tuple[str, int, int]  # topic, partition, offset of an input record
Offence = Literal["missing", "duplicated", "reordered", "orphans"]

_RECORD = 1  # the input has a record at this offset
_FLAGS: dict[Kind, int] = {"result": 2, "dead_letter": 4}  # an outcome of this kind was seen
_ANY_OUTCOME = 6

_PAGE_BITS = 10
_PAGE = 1 << _PAGE_BITS
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


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `consumed` is `published` + `dead_lettered` + `missing`.

    Attributes:
        consumed: input records that are judged.
        published, dead_lettered: those whose first outcome is a result, a dead letter.
        missing: those without an outcome.
        duplicated: outcomes beyond a record's first one.
        reordered: outcomes that came after one of a later record of the same partition.
        orphans: outcomes of no input record, or without readable coordinates.
        pending: input offsets that are not judged yet.
        unjudged: reason -> records or outcomes of which nothing can be said.
        examples: a few coordinates of each offence.
    """

    consumed: int
    published: int
    dead_lettered: int
    missing: int
    duplicated: int
    reordered: int
    orphans: int
    pending: int
    unjudged: Mapping[str, int]
    examples: Mapping[Offence, list[str]]

    def breaches(self, allowed_duplicates: int | None) -> list[Offence]:
        """The offences that break a promise; `allowed_duplicates` None means any number."""
        broken: list[Offence] = []
        if self.missing:
            broken.append("missing")
        if allowed_duplicates is not None and self.duplicated > allowed_duplicates:
            broken.append("duplicated")
        if self.reordered:
            broken.append("reordered")
        if self.orphans:
            broken.append("orphans")
        return broken


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
        self._cells = {partition: _Cells() for partition in scopes}
        self._starts: dict[int, int] = {}
        self._counts: Counter[str] = Counter()
        self._unjudged: Counter[str] = Counter()
        self._examples: dict[Offence, list[str]] = defaultdict(list)
        self._highest: dict[tuple[Kind, int, int], int] = {}
        self._lowest: dict[tuple[Kind, int], int] = {}

    def record(self, partition: int, offset: int) -> None:
        """The input has this record."""
        if offset < self._scopes[partition].limit:
            self._cells[partition].page(offset)[offset & _PAGE - 1] |= _RECORD

    def kept_from(self, starts: Mapping[int, int]) -> None:
        """Where each partition starts, asked after its records were read.

        Asked before, records that retention removes meanwhile would look like orphans' sources.
        """
        self._starts = dict(starts)

    def outcome(self, kind: Kind, partition: int, offset: int, source: Source | None) -> bool:
        """An outcome at `partition` and `offset` of its topic; whether it is its record's first."""
        if source is None:
            return self._orphan(kind, partition, offset, "no coordinates")
        topic, origin, at = source
        if topic != self._topic:
            return self._skip("outcome of another input topic")
        cells = self._cells.get(origin)
        page = cells and cells.pages.get(at >> _PAGE_BITS)
        slot = at & _PAGE - 1
        if not page or not page[slot]:
            return self._unknown(kind, partition, offset, source)
        flag, seen = _FLAGS[kind], page[slot]
        page[slot] = seen | flag
        if not seen & flag:
            self._check_order(kind, partition, origin, at)
        if seen & _ANY_OUTCOME:
            self._note("duplicated", f"{_at(source)} again as {kind} {partition}/{offset}")
            return False
        self._counts[kind] += 1
        return True

    def _check_order(self, kind: Kind, partition: int, origin: int, at: int) -> None:
        # Only what is seen for the first time is judged: after a crash the worker begins again
        # below its highest outcome, and those repeats are duplicates, not disorder.
        lane = (kind, partition, origin)
        highest = self._highest.get(lane, -1)
        if 0 <= highest < at:
            self._highest[lane] = at
            return
        self._lowest[kind, origin] = min(at, self._lowest.get((kind, origin), at))
        if highest < 0:
            self._highest[lane] = at
        else:
            source = _at((self._topic, origin, at))
            self._note("reordered", f"{source} after offset {highest} in {kind} {partition}")

    def _unknown(self, kind: Kind, partition: int, offset: int, source: Source) -> bool:
        """An outcome of which the ledger has no record."""
        _, origin, at = source
        scope = self._scopes.get(origin)
        if scope is None or at >= scope.end:
            return self._orphan(kind, partition, offset, _at(source))
        if at >= scope.limit:
            return self._skip("outcome of a record that is not committed yet")
        if at < self._starts.get(origin, 0):
            return self._skip("outcome of a record that retention has removed")
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

    def report(
        self, gone: Mapping[tuple[Kind, int], bool] | None = None, *, late: bool = False
    ) -> Report:
        """Everything that was found.

        Args:
            gone: (kind, input partition) for which outcomes were removed from their topic:
                True all along (compaction), False from its beginning (retention).
            late: the group may have begun behind the input's start (`input.start = "latest"`).
        """
        missing, examples, unjudged = 0, dict(self._examples), Counter(self._unjudged)
        for partition, cells in self._cells.items():
            floor, why = self._floor(partition, gone or {}, late=late)
            for offset in cells.without_outcome():
                if offset < floor:
                    unjudged[why] += 1
                    continue
                missing += 1
                if missing <= _EXAMPLES:
                    found = examples.setdefault("missing", [])
                    found.append(_at((self._topic, partition, offset)))
        published, dead = self._counts["result"], self._counts["dead_letter"]
        return Report(
            consumed=published + dead + missing,
            published=published,
            dead_lettered=dead,
            missing=missing,
            duplicated=self._counts["duplicated"],
            reordered=self._counts["reordered"],
            orphans=self._counts["orphans"],
            pending=sum(self._pending(partition) for partition in self._scopes),
            unjudged=dict(unjudged),
            examples=examples,
        )

    def _pending(self, partition: int) -> int:
        scope = self._scopes[partition]
        return max(0, scope.end - max(scope.limit, self._starts.get(partition, 0)))

    def _floor(
        self, partition: int, gone: Mapping[tuple[Kind, int], bool], *, late: bool
    ) -> tuple[int, str]:
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


class _Cells:
    """One byte for each offset of a partition, in pages that come to be when touched."""

    __slots__ = ("pages",)

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def page(self, offset: int) -> bytearray:
        """The page with the byte of `offset`, made if need be."""
        number = offset >> _PAGE_BITS
        page = self.pages.get(number)
        if page is None:
            page = self.pages[number] = bytearray(_PAGE)
        return page

    def without_outcome(self) -> Iterator[int]:
        """Offsets of records of which no outcome was seen, ascending."""
        for number in sorted(self.pages):
            page = self.pages[number]
            slot = page.find(_RECORD)  # a byte that is this flag alone
            while slot >= 0:
                yield (number << _PAGE_BITS) + slot
                slot = page.find(_RECORD, slot + 1)


def _at(source: Source) -> str:
    topic, partition, offset = source
    return f"{topic}/{partition}/{offset}"
