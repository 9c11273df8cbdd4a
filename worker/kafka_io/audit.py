"""Reads the topics for `streamlabel audit` and compares them in a ledger.

Owns: an admin client and a reader.
Thread: main.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from worker.core.audit_report import AuditReport
from worker.core.audited_topics import AuditedTopics
from worker.core.bounds import Bound, read_note
from worker.core.counted import counted
from worker.core.dead_records import DeadRecords
from worker.core.ledger import Ledger
from worker.core.outcome_order import Outlet
from worker.core.records import Partition
from worker.core.scope import Scope
from worker.core.topics import TopicInfo
from worker.errors import AccessDenied, BrokerAway, Fatal
from worker.kafka_io.admin import Admin, GroupOffset
from worker.kafka_io.audit_outcomes import read_outcome
from worker.kafka_io.audit_outlets import describe, find_outlets, is_cut, removed_from
from worker.kafka_io.audit_tally import OutcomeTally, is_own
from worker.kafka_io.reader import PATIENCE, TopicReader
from worker.settings import Settings, WorkerTopics

# (topic, number of records read, number of offsets)
Progress = Callable[[str, int, int], None]

_PROGRESS_EVERY = 20_000  # records


@dataclass(frozen=True)
class Audit:
    """The findings, and notes on their limits.

    Attributes:
        topics: of the worker.
        outlets: the topics of outcomes that were read.
        report: of the ledger.
        reasons: number of dead letters by reason.
        filtered: number of filtered records by reason and route.
        digests: of the settings that filtered a record, with their number of records.
        published_to: number of records by the topic of their result.
    """

    topics: WorkerTopics
    outlets: AuditedTopics
    report: AuditReport
    reasons: Mapping[str, int]
    filtered: Mapping[str, int]
    digests: Mapping[str, int]
    published_to: Mapping[str, int]
    notes: tuple[str, ...]


def run_audit(
    settings: Settings,
    *,
    to_end: bool,
    progress: Progress,
    patience: float = 0.0,
    more: Sequence[str] = (),
) -> Audit:
    """Read all topics of the worker and compare them.

    If the group labels a range of its input, the audit judges that range.

    Args:
        settings: cluster, group, topics.
        to_end: check every input record that exists at the start, committed or not.
        progress: called from time to time.
        patience: least seconds to wait for an open transaction to end.
        more: other topics of results, as of earlier settings.

    Raises:
        TopicMissing: one of the topics does not exist, or none matches the pattern.
        Fatal: the group has committed nothing, so there is nothing to check.
        BrokerAway: the broker stopped answering.
    """
    with (
        Admin(settings.kafka) as admin,
        TopicReader(settings.kafka, max(patience, PATIENCE)) as reader,
    ):
        return _Auditor(settings, admin, reader, progress, more).audit(to_end=to_end)


class _Auditor:
    def __init__(
        self,
        settings: Settings,
        admin: Admin,
        reader: TopicReader,
        progress: Progress,
        more: Sequence[str],
    ) -> None:
        self._settings, self._admin = settings, admin
        self._reader, self._progress = reader, progress
        self._topics = admin.resolve(settings.topics)
        self._outlets = find_outlets(admin, settings, self._topics, more)
        self._notes: list[str] = []
        self._starts: dict[Partition, int] = {}  # of the inputs
        self._ranges: dict[Partition, Bound] = {}  # of the inputs, if the group has ranges

    def audit(self, *, to_end: bool) -> Audit:
        servers = self._settings.kafka.bootstrap_servers
        infos = describe(self._admin, servers, self._topics, self._outlets)
        self._notes += [
            f"{name} is compacted: missing records prove nothing"
            for name, info in infos.items()
            if info.compacted
        ]
        # An audit beside a running worker depends on the order of these three requests. A record's
        # outcome is acknowledged before its offset is committed. So every record below the commits
        # (first request) has its outcome below the outcomes' ends (second), and every outcome
        # below those has its record below the input's ends (last).
        limits = self._limits(to_end=to_end)
        read = [outlet for outlet in self._outlets.feeds if outlet.topic in infos]
        outcome_ends = {outlet.topic: self._admin.end_offsets(outlet.topic) for outlet in read}
        scopes = self._scopes(limits, self._ends())
        dead = self._dead_records(scopes, infos, outcome_ends[self._topics.dead_letters])
        compacted = {name for name, info in infos.items() if info.compacted}
        ledger = Ledger(scopes, compacted=compacted, dead=dead)
        for name in self._topics.inputs:
            own = {p.partition: scope for p, scope in scopes.items() if p.topic == name}
            self._read_input(ledger, name, own)
        ledger.set_starts(self._starts)
        group, of_range = self._settings.kafka.group_id, bool(self._ranges)
        tally = OutcomeTally(ledger, self._outlets.fitting, group, of_range=of_range)
        for outlet in read:
            self._read_outcomes(tally, outlet, outcome_ends[outlet.topic])
        late = self._settings.input.start == "latest" and not self._ranges
        starts = {name: self._admin.start_offsets(name) for name in outcome_ends}
        for name, offsets in starts.items():
            self._note_removed(name, sum(offsets.values()))
        removed = removed_from(self._outlets, scopes, starts, infos)
        unread = ledger.copy_topics() - set(outcome_ends)
        report = ledger.report(removed, late=late, of_range=of_range, unread=unread)
        self._note_limits(report, unread)
        return self._found(report, tally)

    def _note_limits(self, report: AuditReport, unread: Collection[str]) -> None:
        if report.unproven:
            self._notes.append(
                f"{counted(report.unproven, 'input record')} without an outcome may be lost: "
                "dead letters or results were removed before this audit, so audit before you purge"
            )
        self._notes += [
            f"results announce copies in {name}, which is not read: name it with --more-topics"
            for name in sorted(unread)
        ]

    def _found(self, report: AuditReport, tally: OutcomeTally) -> Audit:
        return Audit(
            self._topics,
            self._outlets,
            report,
            reasons=dict(tally.reasons.most_common()),
            filtered=dict(tally.filtered.most_common()),
            digests=dict(tally.digests.most_common()),
            published_to=dict(tally.published_to.most_common()),
            notes=tuple(self._notes),
        )

    def _ends(self) -> dict[Partition, int]:
        return {
            Partition(name, number): end
            for name in self._topics.inputs
            for number, end in self._admin.end_offsets(name).items()
        }

    def _limits(self, *, to_end: bool) -> dict[Partition, int]:
        group, inputs = self._settings.kafka.group_id, self._topics.inputs
        offsets = self._group_offsets(group, needed=not to_end)
        notes = {p: read_note(at.note) for p, at in offsets.items() if p.topic in inputs}
        self._ranges = {p: bound for p, bound in notes.items() if bound is not None}
        if lost := sum(bound.lost for bound in self._ranges.values()):
            self._notes.append(
                f"deleted before this group read them: {counted(lost, 'offset')} of its range"
            )
        if to_end:
            return self._ends()
        committed = {p: at.offset for p, at in offsets.items()}
        if not any(p.topic in inputs for p in committed) and any(self._ends().values()):
            names = ", ".join(map(repr, inputs))
            raise Fatal(
                f"group {group!r} has committed no offset of {names}, so there is nothing "
                "to check: correct --group-id, or check all records with --to-end"
            )
        return committed

    def _group_offsets(self, group: str, *, needed: bool) -> dict[Partition, GroupOffset]:
        """Return the group's offsets; none if only its range was wanted, and may not be read."""
        try:
            return self._admin.group_offsets(group)
        except AccessDenied:
            if needed:
                raise
            return {}

    def _scopes(
        self, limits: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> dict[Partition, Scope]:
        for partition, limit in limits.items():
            end = ends.get(partition, 0)
            if limit > end and partition.topic in self._topics.inputs:
                self._notes.append(
                    f"{partition.topic} {partition.partition}: offset {limit} is committed but the "
                    f"partition ends at {end}: the topic may have been recreated"
                )
        return {p: self._scope(p, min(limits.get(p, 0), end), end) for p, end in ends.items()}

    def _scope(self, partition: Partition, limit: int, end: int) -> Scope:
        bound = self._ranges.get(partition)
        if bound is None:
            return Scope(limit, end)
        return Scope(min(limit, bound.end), end, bound.start, bound.end)

    def _dead_records(
        self,
        scopes: Mapping[Partition, Scope],
        infos: Mapping[str, TopicInfo],
        ends: Mapping[int, int],
    ) -> DeadRecords:
        """Read the dead letters once before the results, which may be those of replays."""
        dead, name = DeadRecords(scopes), self._topics.dead_letters
        group = self._settings.kafka.group_id
        for record in self._reader.read(name, ends):
            outcome = read_outcome("dead_letter", record)
            if outcome is None or outcome.copy_route is not None:
                continue
            if outcome.source and is_own(outcome, group, of_range=bool(self._ranges)):
                dead.add(outcome.source, outcome.timestamp_ms)
        starts, compacted = self._admin.start_offsets(name), infos[name].compacted
        dead.removed_from([p for p in scopes if compacted or is_cut(p, starts)])
        return dead

    def _read_input(self, ledger: Ledger, topic: str, scopes: Mapping[int, Scope]) -> None:
        ends = {number: scope.limit for number, scope in scopes.items()}
        first = {number: scope.start for number, scope in scopes.items()}
        total = sum(scope.limit - scope.start for scope in scopes.values())
        for number, record in enumerate(self._reader.read(topic, ends, first)):
            partition = Partition(topic, record.partition)
            ledger.record(partition, record.offset, record.timestamp_ms)
            if number % _PROGRESS_EVERY == 0:
                self._progress(topic, number, total)
        self._note_unread(topic)
        starts = self._admin.start_offsets(topic)
        self._starts |= {Partition(topic, p): start for p, start in starts.items()}
        removed = {p: min(starts.get(p, 0), end) - first[p] for p, end in ends.items()}
        self._note_removed(topic, sum(max(0, number) for number in removed.values()))

    def _read_outcomes(self, tally: OutcomeTally, outlet: Outlet, ends: Mapping[int, int]) -> None:
        total = sum(ends.values())
        for number, record in enumerate(self._reader.read(outlet.topic, ends)):
            tally.add(outlet, record)
            if number % _PROGRESS_EVERY == 0:
                self._progress(outlet.topic, number, total)
        self._note_unread(outlet.topic)

    def _note_unread(self, topic: str) -> None:
        if not self._reader.unread:
            return
        stable = self._admin.end_offsets(topic, "read_committed")
        for partition, position in self._reader.unread.items():
            if position < stable.get(partition, 0):
                raise BrokerAway(f"{topic} {partition}: no record arrived after offset {position}")
            self._notes.append(
                f"{topic} {partition}: not read from offset {position} on, where a transaction "
                "is still open"
            )

    def _note_removed(self, topic: str, offsets: int) -> None:
        if offsets:
            self._notes.append(f"{topic}: {counted(offsets, 'offset')} removed before this audit")
