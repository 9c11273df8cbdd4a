"""The copies of results that routes ask for: which are announced, and which are there.

A result announces its copies in its header. A copy that no result announces proves nothing: its
result may have been removed, or the settings changed between two attempts.

Call it in this order: `announce` for every main outcome and `add` for every copy, then `refuse` for
every copy that a dead letter tells of, then `missing`.

Owns: the state of every announced copy, one byte for each record of a route.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Final

from worker.core.cells import Cells
from worker.core.outcome_order import Offenders, OutcomeOrder, Outlet, Removed, place
from worker.core.records import Partition
from worker.core.route_headers import CopyNote

_ANNOUNCED: Final = 1
_SEEN: Final = 2
_DOUBTED: Final = 4  # only some of the record's outcomes announce it
_REFUSED: Final = 8
_DOUBTS: Final = {
    _ANNOUNCED | _DOUBTED: "copy that only some outcomes of its record announce",
    _SEEN: "copy that no result announces",
}
_NO_LIMIT: Final = 2**63


class CopyLedger:
    """Matches announced copies with those that are there.

    Args:
        order: checks the order of copies within each topic.
    """

    def __init__(self, order: OutcomeOrder) -> None:
        self._order = order
        self._cells: defaultdict[Partition, dict[CopyNote, Cells]] = defaultdict(dict)
        self.seen: Counter[str] = Counter()

    def announce(
        self, origin: Partition, at: int, copies: Collection[CopyNote], *, again: bool
    ) -> None:
        """Add the copies that a main outcome announces.

        After a crash, a record may have a second outcome that another route chose, since settings
        or model changed. One of the two has all its copies, and which one is unknown.

        Args:
            origin: partition of the record.
            at: offset of the record.
            copies: of the outcome.
            again: whether the record has another main outcome.
        """
        known = self._cells[origin] if copies else self._cells.get(origin, {})
        if again:
            for copy, cells in known.items():
                if cells[at] & _ANNOUNCED and copy not in copies:
                    cells[at] |= _DOUBTED
        for copy in copies:
            cells = known.setdefault(copy, Cells())
            late = again and not cells[at] & _ANNOUNCED
            cells[at] |= _ANNOUNCED | (_DOUBTED if late else 0)

    def add(self, copy: CopyNote, partition: int, origin: Partition, at: int) -> bool:
        """Add a copy, and return False if it is repeated.

        Args:
            copy: its route and topic.
            partition: of the copy.
            origin: partition of the record.
            at: offset of the record.
        """
        cells = self._cells[origin].setdefault(copy, Cells())
        if cells[at] & _SEEN:
            return False
        cells[at] |= _SEEN
        self.seen[copy.topic] += 1
        self._order.add(Outlet("copy", copy.topic), partition, origin, at)
        return True

    def refuse(self, route: str, origin: Partition, at: int) -> None:
        """Add a dead letter that tells of a copy which its topic refused."""
        for copy, cells in self._cells.get(origin, {}).items():
            if copy.route == route and cells[at] & _ANNOUNCED:
                cells[at] |= _REFUSED

    @property
    def refused(self) -> int:
        """Number of announced copies that their topic refused, each told by a dead letter."""
        return sum(
            1
            for copies in self._cells.values()
            for cells in copies.values()
            for value in (_ANNOUNCED | _REFUSED, _ANNOUNCED | _REFUSED | _DOUBTED)
            for _ in cells.find(value)
        )

    def topics(self) -> set[str]:
        """Return the topics that copies were announced for or seen in."""
        return {copy.topic for copies in self._cells.values() for copy in copies}

    def missing(
        self, removed: Removed, unread: Collection[str], unjudged: Counter[str]
    ) -> Offenders:
        """Return the number of announced copies that are not there, with examples.

        Args:
            removed: as for `Ledger.report`.
            unread: topics that the audit does not read.
            unjudged: takes the number of copies that can't be judged, by reason.
        """
        missing = Offenders()
        for origin, copies in self._cells.items():
            for copy, cells in copies.items():
                floor, reason = self._floor(copy, origin, removed)
                if copy.topic in unread:
                    floor, reason = _NO_LIMIT, f"copy in {copy.topic}, which is not read"
                for at in cells.find(_ANNOUNCED):
                    if at < floor:
                        unjudged[reason] += 1
                    else:
                        missing.add(f"{place(origin, at)} to {copy.topic} by route {copy.route}")
                for value, doubt in _DOUBTS.items():
                    if number := sum(1 for _ in cells.find(value)):
                        unjudged[doubt] += number
        return missing

    def _floor(self, copy: CopyNote, origin: Partition, removed: Removed) -> tuple[int, str]:
        """Return the offset below which a missing copy proves nothing, and why.

        Its dead letter may have been removed instead, if there ever was one.
        """
        floors = [(0, "")]
        for (outlet, partition), anywhere in removed.items():
            is_own = outlet == Outlet("copy", copy.topic)
            if partition == origin and (is_own or outlet.kind == "dead_letter"):
                lowest = self._order.lowest(outlet, origin, _NO_LIMIT)
                way = "compaction" if anywhere else "retention"
                what = "copy that" if is_own else "copy whose dead letter"
                floors.append((_NO_LIMIT if anywhere else lowest, f"{what} {way} may have removed"))
        return max(floors)
