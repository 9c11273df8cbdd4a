"""The audit's ledger: matches input records with their outcomes, and counts broken promises.

Call it in this order: `record` for every input record, `set_starts`, `outcome` and `copy` for every
outcome of each topic in the order of its partitions (results first, then notes of filtered records,
then dead letters), `report`.

Owns: the state of every input record that is judged.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from worker.core.audit_report import AuditReport, Offence
from worker.core.cells import Cells
from worker.core.copy_ledger import CopyLedger
from worker.core.dead_records import DeadRecords
from worker.core.doubts import Doubts
from worker.core.outcome_order import (
    EXAMPLES,
    OutcomeOrder,
    Outlet,
    Removed,
    place,
    removed_reason,
)
from worker.core.records import Partition
from worker.core.replay import Replay
from worker.core.replay_outcomes import Kind, ReplayOutcomes, Source
from worker.core.route_headers import CopyNote
from worker.core.scope import Scope

_RECORD = 1  # the input has a record at this offset
# The record has a main outcome of this kind.
_FLAGS: dict[Kind, int] = {"result": 2, "filtered": 16, "dead_letter": 4}
_SETTLED = 18
_ANY_OUTCOME = 22
_REPLAYED = 8  # a replay of the record has an outcome


class Ledger:
    """Matches records with outcomes.

    Args:
        scopes: scope of each input partition.
        compacted: input topics that compaction removes records from, so that an outcome without a
            record proves nothing.
        dead: the records that replays may stand in for.
    """

    def __init__(
        self,
        scopes: Mapping[Partition, Scope],
        *,
        compacted: Collection[str] = (),
        dead: DeadRecords | None = None,
    ) -> None:
        self._scopes, self._dead = scopes, dead or DeadRecords(scopes)
        self._doubts = Doubts(scopes, compacted)
        self._cells = {partition: Cells() for partition in scopes}
        self._counts: Counter[str] = Counter()
        self._unjudged: Counter[str] = Counter()
        self._examples: dict[Offence, list[str]] = defaultdict(list)
        self._order, self._replays = OutcomeOrder(), ReplayOutcomes()
        self._copies = CopyLedger(self._order)

    def record(self, partition: Partition, offset: int, timestamp_ms: int = 0) -> None:
        """Add a record of the input."""
        self._dead.record(partition, offset, timestamp_ms)
        scope = self._scopes[partition]
        if scope.start <= offset < scope.limit:
            self._cells[partition][offset] = _RECORD
            self._doubts.record(partition.topic, timestamp_ms)

    def set_starts(self, starts: Mapping[Partition, int]) -> None:
        """Set the start offset of each partition, read after the partition's records.

        With starts that were read before, the outcomes of records that retention removes in the
        meantime would look like orphans.
        """
        self._doubts.starts = dict(starts)

    def copy_topics(self) -> set[str]:
        """Return the topics of the copies that results announce or that were read."""
        return self._copies.topics()

    def leave_out(self, reason: str) -> None:
        """Count a record of a topic of outcomes that is not judged."""
        self._unjudged[reason] += 1

    def outcome(
        self,
        outlet: Outlet,
        partition: int,
        offset: int,
        source: Source | None,
        timestamp_ms: int = 0,
        replay: Replay | None = None,
        *,
        copies: Collection[CopyNote] = (),
    ) -> bool:
        """Add a main outcome, and return whether it is the one that its record counts under.

        Args:
            outlet: kind and topic of the outcome.
            partition: partition of the outcome in that topic.
            offset: offset of the outcome in that topic.
            source: coordinates of its input record; None if they can't be read.
            timestamp_ms: timestamp of its input record, as stated in the outcome.
            replay: the replay that it is an outcome of, if any.
            copies: those that it announces.
        """
        claim = f"{outlet} {partition}/{offset}"
        origin = self._judged(claim, source, timestamp_ms)
        if source is None or origin is None:
            return False
        kind, at, cells = outlet.kind, source[2], self._cells[origin]
        flags = cells[at]
        self._copies.announce(origin, at, copies, again=bool(flags & _ANY_OUTCOME))
        if replay is not None and replay.source not in self._dead:
            replay = None  # of a record that never was dead here: this one is a record of its own
        if replay is not None and replay.source == source:  # labelled from its dead letter
            return self._replayed(kind, replay, claim)
        cells[at] = flags | _FLAGS[kind]
        if not flags & _FLAGS[kind]:
            self._order.add(outlet, partition, origin, at)
        if flags & _ANY_OUTCOME:
            return self._repeated(origin, at, claim)
        return self._first(kind, source, replay, claim)

    def copy(
        self,
        outlet: Outlet,
        partition: int,
        offset: int,
        source: Source | None,
        timestamp_ms: int = 0,
        replay: Replay | None = None,
        *,
        route: str,
    ) -> None:
        """Add a copy that this route asked for, or a dead letter that tells of a refused one.

        The other arguments are those of `outcome`.
        """
        claim = f"{outlet} {partition}/{offset}"
        origin = self._judged(claim, source, timestamp_ms)
        if source is None or origin is None:
            return
        if outlet.kind == "dead_letter":
            self._copies.refuse(route, origin, source[2])
        elif not self._copies.add(CopyNote(route, outlet.topic), partition, origin, source[2]):
            if replay is not None and replay.source in self._dead:
                # The broker refused the result after it had acknowledged the copy.
                self.leave_out("copy that a replay repeats")
            else:
                self._repeated(origin, source[2], claim)

    def _judged(self, claim: str, source: Source | None, timestamp_ms: int) -> Partition | None:
        """Return the partition of an outcome's record, or None if the outcome is not judged."""
        if source is None:
            self._note("orphans", f"{claim}: unreadable coordinates")
            return None
        origin, at = Partition(*source[:2]), source[2]
        cells, older = self._cells.get(origin), self._doubts.is_older(origin.topic, timestamp_ms)
        if cells is not None and cells[at] and not older:
            return origin
        if reason := self._doubts.why(origin, at, older=older):
            self.leave_out(reason)
        else:
            self._note("orphans", f"{claim}: {place(origin, at)}")
        return None

    def _first(self, kind: Kind, source: Source, replay: Replay | None, claim: str) -> bool:
        """Count the first outcome of a record, unless a replay has labelled the record since."""
        if replay is not None:
            return self._replayed(kind, replay, claim)
        if self._replays.is_settled(source):
            return kind != "dead_letter" and self._repeated(
                Partition(*source[:2]), source[2], claim
            )
        self._counts[kind] += 1
        return True

    def _replayed(self, kind: Kind, replay: Replay, claim: str) -> bool:
        """Add the outcome of a replay to the record that was dead first.

        The order of partitions does not hold for it: it is late by nature.
        """
        origin, at = Partition(*replay.source[:2]), replay.source[2]
        cells = self._cells.get(origin)
        flags = cells[at] if cells else 0
        fresh = self._replays.add(kind, replay)
        if not fresh or flags & _SETTLED:
            return self._repeated(origin, at, claim)
        if cells is not None and flags:
            cells[at] = flags | _REPLAYED
        # A record that is judged counts as dead already, or `report` finds that it does.
        counts = kind != "dead_letter" or (not flags and self._replays.is_first(replay.source))
        self._counts[kind] += counts
        return counts

    def _repeated(self, origin: Partition, at: int, claim: str) -> bool:
        self._note("duplicated", f"{place(origin, at)} again as {claim}")
        return False

    def _note(self, offence: Offence, example: str) -> None:
        self._counts[offence] += 1
        if len(self._examples[offence]) < EXAMPLES:
            self._examples[offence].append(example)

    def report(
        self,
        removed: Removed | None = None,
        *,
        late: bool = False,
        of_range: bool = False,
        unread: Collection[str] = (),
    ) -> AuditReport:
        """Return the findings.

        Args:
            removed: (outlet, input partition) of outcomes that were removed from their topic: True
                if anywhere in it (compaction), False if from its beginning (retention).
            late: whether the group may have begun after the start of the input
                (`input.start = "latest"`).
            of_range: whether the group labels a range.
            unread: topics of `copy_topics` that were not read.
        """
        removed = removed or {}
        examples, unjudged = dict(self._examples), Counter(self._unjudged)
        missing = self._missing(removed, late, examples, unjudged)
        uncopied = self._copies.missing(removed, unread, unjudged)
        if uncopied.number:
            examples["uncopied"] = uncopied.examples
        shown: list[str] = []
        if reordered := self._order.late(removed, shown, unjudged):
            examples["reordered"] = shown
        published, filtered = self._counts["result"], self._counts["filtered"]
        dead_lettered = self._counts["dead_letter"] + self._dead_by_replay_only()
        return AuditReport(
            consumed=published + filtered + dead_lettered + missing,
            published=published,
            filtered=filtered,
            dead_lettered=dead_lettered,
            replayed=self._replays.labelled,
            missing=missing,
            duplicated=self._counts["duplicated"],
            reordered=reordered,
            orphans=self._counts["orphans"],
            pending=sum(self._pending(partition) for partition in self._scopes),
            unjudged=dict(unjudged),
            unproven=sum(unjudged.get(removed_reason(kind), 0) for kind in _FLAGS),
            of_range=of_range,
            examples=examples,
            copies=dict(self._copies.seen.most_common()),
            refused_copies=self._copies.refused,
            uncopied=uncopied.number,
        )

    def _dead_by_replay_only(self) -> int:
        """Count dead letters whose first one was removed, as after a purge."""
        return sum(
            not self._replays.is_settled((*partition, offset))
            for partition, cells in self._cells.items()
            for offset in cells.find(_RECORD | _REPLAYED)
        )

    def _missing(
        self, removed: Removed, late: bool, examples: dict[Offence, list[str]],
        unjudged: Counter[str],
    ) -> int:  # fmt: skip
        missing = 0
        for partition, cells in self._cells.items():
            limit = self._scopes[partition].limit
            floor, reason = self._order.floor(partition, limit, removed, late=late)
            for offset in cells.find(_RECORD):  # without any outcome
                if offset < floor:
                    unjudged[reason] += 1
                    continue
                missing += 1
                if missing <= EXAMPLES:
                    examples.setdefault("missing", []).append(place(partition, offset))
        return missing

    def _pending(self, partition: Partition) -> int:
        pending = self._scopes[partition].pending
        return max(0, pending.stop - max(pending.start, self._doubts.starts.get(partition, 0)))
