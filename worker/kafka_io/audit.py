"""Reads the topics for `streamlabel audit` and fills the ledger.

Runs on the main thread. Imports core and kafka_io; loading it loads the Kafka client.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from worker.core.audit_report import AuditReport
from worker.core.coordinates import SOURCE_HEADER, parse_source
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.ledger import Kind, Ledger, Scope
from worker.core.records import Headers
from worker.core.topics import TopicInfo
from worker.errors import BrokerAway, Fatal, TopicMissing
from worker.kafka_io.admin import Admin
from worker.kafka_io.reader import History, Seen
from worker.settings import Settings

# (topic, records read, offsets there are)
Progress = Callable[[str, int, int], None]

_PROGRESS_EVERY = 20_000  # records
# The reason is the document's first member; parsing it whole would cost more than the rest.
_REASON = re.compile(rb'"reason"\s*:\s*"(\w+)"')
_TIMESTAMP = b'"timestamp_ms":'
_MOST_DIGITS = 20


@dataclass(frozen=True)
class Audit:
    """What the ledger found, why records were dead-lettered, what could not be read."""

    report: AuditReport
    reasons: Mapping[str, int]
    notes: tuple[str, ...]


def perform(settings: Settings, *, to_end: bool, progress: Progress) -> Audit:
    """Read all three topics and compare them.

    Args:
        settings: cluster, group, topics.
        to_end: judge every input record that there is at the start, committed or not.
        progress: called once in a while.

    Raises:
        TopicMissing: one of the three.
        Fatal: the group has committed nothing, so nothing could be judged.
        BrokerAway: it stopped answering.
    """
    with Admin(settings.kafka) as admin, History(settings.kafka) as history:
        return _Auditor(settings, admin, history, progress).audit(to_end=to_end)


class _Auditor:
    def __init__(
        self, settings: Settings, admin: Admin, history: History, progress: Progress
    ) -> None:
        self._settings, self._admin = settings, admin
        self._history, self._progress = history, progress
        topics = settings.topics
        (self._input,) = topics.inputs
        self._outcomes: dict[Kind, str] = {
            "result": topics.output,
            "dead_letter": topics.dead_letters,
        }
        self._reasons: Counter[str] = Counter()
        self._notes: list[str] = []

    def audit(self, *, to_end: bool) -> Audit:
        infos = self._topics()
        self._notes += [
            f"{name} is compacted: what it lacks proves nothing"
            for name, info in infos.items()
            if info.compacted
        ]
        # The order of these three questions is what makes an audit beside a running worker fair.
        # A record's outcome is acknowledged before its offset is committed: so what lies below
        # the commits (asked first) has its outcome below the outcomes' ends (asked second), and
        # what lies below those has its record below the input's ends (asked last).
        limits = self._limits(to_end=to_end)
        outcome_ends = {
            kind: self._admin.end_offsets(name) for kind, name in self._outcomes.items()
        }
        scopes = self._scopes(limits, self._admin.end_offsets(self._input))
        ledger = Ledger(self._input, scopes, compacted=infos[self._input].compacted)
        self._read_input(ledger, scopes)
        for kind, ends in outcome_ends.items():
            self._read_outcomes(ledger, kind, ends)
        late = self._settings.input.start == "latest"
        report = ledger.report(self._gone(scopes, infos), late=late)
        return Audit(report, dict(self._reasons.most_common()), tuple(self._notes))

    def _topics(self) -> dict[str, TopicInfo]:
        infos = self._admin.topics(self._settings.topics.all)
        missing = ", ".join(name for name, info in infos.items() if info is None)
        if missing:
            where = self._settings.kafka.bootstrap_servers
            raise TopicMissing(
                f"nothing to audit: missing on {where}: {missing} "
                "(`streamlabel topics create` makes the topics)"
            )
        return {name: info for name, info in infos.items() if info is not None}

    def _limits(self, *, to_end: bool) -> dict[int, int]:
        if to_end:
            return self._admin.end_offsets(self._input)
        group = self._settings.kafka.group_id
        committed = self._admin.committed(group, self._input)
        if not committed and any(self._admin.end_offsets(self._input).values()):
            raise Fatal(
                f"group {group!r} has committed no offset of {self._input!r}, so there is nothing "
                "to judge: check --group-id, or judge everything with --to-end"
            )
        return committed

    def _scopes(self, limits: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, Scope]:
        for partition, limit in limits.items():
            if limit > ends.get(partition, 0):
                self._notes.append(
                    f"{self._input} {partition}: offset {limit} is committed but the partition "
                    f"ends at {ends.get(partition, 0)}: was the topic made anew?"
                )
        return {p: Scope(min(limits.get(p, 0), end), end) for p, end in ends.items()}

    def _read_input(self, ledger: Ledger, scopes: Mapping[int, Scope]) -> None:
        ends = {partition: scope.limit for partition, scope in scopes.items()}
        total = sum(ends.values())
        for number, seen in enumerate(self._history.read(self._input, ends)):
            ledger.record(seen.partition, seen.offset, seen.timestamp_ms)
            if number % _PROGRESS_EVERY == 0:
                self._progress(self._input, number, total)
        self._note_unread(self._input)
        starts = self._admin.start_offsets(self._input)
        ledger.kept_from(starts)
        removed = sum(min(starts.get(p, 0), end) for p, end in ends.items())
        self._note_removed(self._input, removed)

    def _read_outcomes(self, ledger: Ledger, kind: Kind, ends: Mapping[int, int]) -> None:
        topic, total = self._outcomes[kind], sum(ends.values())
        for number, seen in enumerate(self._history.read(topic, ends)):
            self._read_outcome(ledger, kind, seen)
            if number % _PROGRESS_EVERY == 0:
                self._progress(topic, number, total)
        self._note_unread(topic)

    def _read_outcome(self, ledger: Ledger, kind: Kind, seen: Seen) -> None:
        coordinates = _own(seen.headers, SOURCE_HEADER)
        if coordinates is None:
            ledger.foreign()
            return
        letter = _own(seen.headers, DEAD_LETTER_HEADER) or b""
        document = letter if kind == "dead_letter" else seen.value
        first = ledger.outcome(
            kind,
            seen.partition,
            seen.offset,
            parse_source(coordinates),
            _timestamp(document, seen.timestamp_ms),
        )
        if first and kind == "dead_letter":
            self._reasons[_reason(letter)] += 1

    def _note_unread(self, topic: str) -> None:
        if not self._history.unread:
            return
        stable = self._admin.end_offsets(topic, "read_committed")
        for partition, position in self._history.unread.items():
            if position < stable.get(partition, 0):
                raise BrokerAway(f"{topic} {partition}: no record came after offset {position}")
            self._notes.append(
                f"{topic} {partition}: not read from offset {position} on, where a transaction "
                "is still open"
            )

    def _gone(
        self, scopes: Mapping[int, Scope], infos: Mapping[str, TopicInfo]
    ) -> dict[tuple[Kind, int], bool]:
        """Where outcomes were removed from their topic, for each partition that they come from."""
        gone: dict[tuple[Kind, int], bool] = {}
        for kind, topic in self._outcomes.items():
            starts = self._admin.start_offsets(topic)
            self._note_removed(topic, sum(starts.values()))
            for partition in scopes:
                if infos[topic].compacted:
                    gone[kind, partition] = True
                elif starts[partition % len(starts)] > 0:
                    gone[kind, partition] = False
        return gone

    def _note_removed(self, topic: str, offsets: int) -> None:
        if offsets:
            self._notes.append(f"{topic}: {offsets:,} offsets were removed before this audit")


def _own(headers: Headers, name: str) -> bytes | None:
    """The value of a header of ours: the last of its name, should the record have come with one."""
    return next((value or b"" for found, value in reversed(headers) if found == name), None)


def _timestamp(document: bytes, otherwise: int) -> int:
    """The input record's timestamp, as our document states it.

    The outcome's own one differs where the input's was too far ahead to be published. The last
    member of that name is ours, also in an enriched object.
    """
    at = document.rfind(_TIMESTAMP) + len(_TIMESTAMP)
    digits = document[at : at + _MOST_DIGITS].partition(b"}")[0]
    return int(digits) if digits.isdigit() else otherwise


def _reason(letter: bytes) -> str:
    found = _REASON.search(letter)
    return found[1].decode("ascii", "replace") if found else "unknown"
