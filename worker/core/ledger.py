"""The audit's ledger: matches input records with their outcomes, and counts broken promises.

Call it in this order: `record` for every input record, `set_starts`, `outcome` for every outcome of
each topic in the order of its partitions (results before dead letters), `report`.

Owns: the state of every input record that is judged.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from worker.core.audit_report import AuditReport, Offence
from worker.core.cells import Cells
from worker.core.dead_records import DeadRecords
from worker.core.outcome_order import EXAMPLES, OutcomeOrder, Removed, place
from worker.core.records import Partition
from worker.core.replay import Replay
from worker.core.replay_outcomes import Kind, ReplayOutcomes, Source
from worker.core.scope import Scope

_RECORD = 1  # the input has a record at this offset
_FLAGS: dict[Kind, int] = {"result": 2, "dead_letter": 4}  # the record has an outcome of this kind
_ANY_OUTCOME = 6
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
        self._compacted = compacted
        self._topics = {partition.topic for partition in scopes}
        self._nonempty = {partition.topic for partition, scope in scopes.items() if scope.end}
        self._cells = {partition: Cells() for partition in scopes}
        self._starts: dict[Partition, int] = {}
        self._earliest_ms: dict[str, int] = {}  # by input topic
        self._counts: Counter[str] = Counter()
        self._unjudged: Counter[str] = Counter()
        self._examples: dict[Offence, list[str]] = defaultdict(list)
        self._order, self._replays = OutcomeOrder(), ReplayOutcomes()

    def record(self, partition: Partition, offset: int, timestamp_ms: int = 0) -> None:
        """Add a record of the input."""
        self._dead.record(partition, offset, timestamp_ms)
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

    def leave_out(self, reason: str) -> None:
        """Count a record of a topic of outcomes that is not judged."""
        self._skip(reason)

    def outcome(
        self,
        kind: Kind,
        partition: int,
        offset: int,
        source: Source | None,
        timestamp_ms: int = 0,
        replay: Replay | None = None,
    ) -> bool:
        """Add an outcome, and return whether it is the one that its record counts under.

        Args:
            kind: result or dead letter, each in its own topic.
            partition: partition of the outcome in that topic.
            offset: offset of the outcome in that topic.
            source: coordinates of its input record; None if they can't be read.
            timestamp_ms: timestamp of its input record, as stated in the outcome.
            replay: the replay that it is an outcome of, if any.
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
        if replay is not None and replay.source not in self._dead:
            replay = None  # of a record that never was dead here: this one is a record of its own
        if replay is not None and replay.source == source:  # labelled from its dead letter
            return self._replayed(kind, replay, f"{kind} {partition}/{offset}")
        cells[at] = flags | _FLAGS[kind]
        if not flags & _FLAGS[kind]:
            self._order.add(kind, partition, origin, at)
        if flags & _ANY_OUTCOME:
            return self._repeated(origin, at, f"{kind} {partition}/{offset}")
        return self._first(kind, source, replay, f"{kind} {partition}/{offset}")

    def _first(self, kind: Kind, source: Source, replay: Replay | None, claim: str) -> bool:
        """Count the first outcome of a record, unless a replay has labelled the record since."""
        if replay is not None:
            return self._replayed(kind, replay, claim)
        if self._replays.is_labelled(source):
            return kind == "result" and self._repeated(Partition(*source[:2]), source[2], claim)
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
        if not fresh or flags & _FLAGS["result"]:
            return self._repeated(origin, at, claim)
        if cells is not None and flags:
            cells[at] = flags | _REPLAYED
        # A record that is judged counts as dead already, or `report` finds that it does.
        counts = kind == "result" or (not flags and self._replays.is_first(replay.source))
        self._counts[kind] += counts
        return counts

    def _repeated(self, origin: Partition, at: int, claim: str) -> bool:
        self._note("duplicated", f"{place(origin, at)} again as {claim}")
        return False

    def _is_older(self, topic: str, timestamp_ms: int) -> bool:
        """Return whether no record of the input topic can have this timestamp.

        A topic that is deleted and created again restarts at offset 0. Outcomes of the deleted
        topic's records have coordinates of the new topic's records, or of none. Only their
        timestamps differ.
        """
        if topic not in self._earliest_ms:
            return topic not in self._nonempty
        return timestamp_ms < self._earliest_ms[topic]

    def _unknown(
        self, kind: Kind, partition: int, offset: int, source: Source, *, older: bool
    ) -> bool:
        """Add an outcome without a known record."""
        origin, at = Partition(source[0], source[1]), source[2]
        if reason := self._why_unjudged(origin, at, older=older):
            return self._skip(reason)
        return self._orphan(kind, partition, offset, place(origin, at))

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
        if len(self._examples[offence]) < EXAMPLES:
            self._examples[offence].append(example)

    def report(
        self, removed: Removed | None = None, *, late: bool = False, of_range: bool = False
    ) -> AuditReport:
        """Return the findings.

        Args:
            removed: (kind, input partition) of outcomes that were removed from their topic: True if
                anywhere in it (compaction), False if from its beginning (retention).
            late: whether the group may have begun after the start of the input
                (`input.start = "latest"`).
            of_range: whether the group labels a range.
        """
        removed = removed or {}
        examples, unjudged = dict(self._examples), Counter(self._unjudged)
        missing = self._missing(removed, late, examples, unjudged)
        shown: list[str] = []
        if reordered := self._order.late(removed, shown, unjudged):
            examples["reordered"] = shown
        published = self._counts["result"]
        dead_lettered = self._counts["dead_letter"] + self._dead_by_replay_only()
        return AuditReport(
            consumed=published + dead_lettered + missing,
            published=published,
            dead_lettered=dead_lettered,
            replayed=self._replays.labelled,
            missing=missing,
            duplicated=self._counts["duplicated"],
            reordered=reordered,
            orphans=self._counts["orphans"],
            pending=sum(self._pending(partition) for partition in self._scopes),
            unjudged=dict(unjudged),
            unproven=sum(unjudged.get(_removed_reason(kind), 0) for kind in _FLAGS),
            of_range=of_range,
            examples=examples,
        )

    def _dead_by_replay_only(self) -> int:
        """Count dead letters whose first one was removed, as after a purge."""
        return sum(
            not self._replays.is_labelled((*partition, offset))
            for partition, cells in self._cells.items()
            for offset in cells.find(_RECORD | _REPLAYED)
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
                if missing <= EXAMPLES:
                    examples.setdefault("missing", []).append(place(partition, offset))
        return missing

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
                first = limit if anywhere else self._order.lowest(kind, partition, limit)
                if first > floor:
                    floor, reason = first, _removed_reason(kind, compacted=anywhere)
        if late:
            firsts = [self._order.lowest(kind, partition, limit) for kind in _FLAGS]
            if min(firsts) > floor:
                floor, reason = min(firsts), "record before the group's first outcome"
        return floor, reason


def _removed_reason(kind: Kind, *, compacted: bool = False) -> str:
    return f"record whose {kind} " + (
        "compaction may have removed" if compacted else "may have been removed"
    )
