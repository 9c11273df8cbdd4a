"""Judges a run whose input has lost records, or has had several records at one place.

`streamlabel audit` knows a record by its partition and offset. Here a record is known by its
number, and the audit's own ledger judges numbers in place of offsets: so a repeat, an outcome out
of order or a copy that is missing counts as ever. An outcome is missing if its record is still in
the log at the end, or if the log had it after the group had passed it. Other records without an
outcome are lost with their log, which the verdict counts. Pure, but for `judged`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from tests.chaos.lives import Lives
from tests.chaos.sent import Fate, Sent, number_of
from worker.core.audit_report import AuditReport
from worker.core.ledger import Ledger
from worker.core.outcome_order import Outlet
from worker.core.records import Partition
from worker.core.replay_outcomes import Kind
from worker.core.scope import Scope
from worker.kafka_io.admin import Admin
from worker.kafka_io.audit_outcomes import AuditedOutcome, read_outcome
from worker.kafka_io.reader import TopicReader
from worker.settings import KafkaSettings

_TOPIC: Final = "input"
_ORDER: Final[tuple[Kind, ...]] = ("result", "copy", "filtered", "dead_letter")
_DUE: Final[Mapping[Fate, Kind]] = {"bad": "dead_letter", "spam": "filtered"}
_ADDED: Final = ("consumed", "published", "filtered", "dead_lettered", "duplicated", "uncopied")


class NumberedOutcome(NamedTuple):
    """An outcome, its outlet, and its partition and offset there."""

    outlet: Outlet
    partition: int
    offset: int
    outcome: AuditedOutcome
    number: int | None


class NumberedLedger:
    """Matches records with outcomes by number.

    Args:
        sent: the records.
        required: numbers of those that must have an outcome.
        routed: whether the records of a kind are filtered; else each good one has a result.
    """

    def __init__(self, sent: Sent, required: AbstractSet[int], *, routed: bool = False) -> None:
        self._sent, self._routed = sent, routed
        self._records = sent.known
        self._required = required & self._records.keys()
        self._outcomes: list[NumberedOutcome] = []
        self._examples: list[str] = []

    def add(self, outcome: NumberedOutcome) -> None:
        """Add an outcome; those of a partition come in its order."""
        self._outcomes.append(outcome)

    def report(self) -> dict[str, Any]:
        """Return the findings, by the names that `streamlabel audit` gives them."""
        all_placed = [(one, self._place(one)) for one in self._outcomes]
        placed = [(one, number) for one, number in all_placed if number in self._records]
        orphans = sum(number < 0 for _, number in all_placed)
        labelled = {n: one for one, n in placed if one.outcome.copy_route is None}
        ended = labelled.keys() - self._required
        standing = self._judge(placed, self._required)
        others = self._judge(placed, ended)
        facts = asdict(standing) | {
            name: getattr(standing, name) + getattr(others, name) for name in _ADDED
        }
        copies = Counter(standing.copies)
        copies.update(others.copies)
        undue = self._undue((n, one.outlet.kind) for n, one in labelled.items())
        return facts | {
            "copies": dict(copies),
            "orphans": standing.orphans + others.orphans + orphans,
            "required": len(self._required),
            "lost": len(self._sent.records.keys() - self._required - labelled.keys()),
            "undue_dead_letters": undue["dead_letter"],
            "undue_filtered": undue["filtered"],
            "examples": {**standing.examples, "of_ended_lives": others.examples,
                         "misplaced": self._examples},
        }  # fmt: skip

    def _place(self, one: NumberedOutcome) -> int:
        """Return the number of an outcome's record, or -1 if there was none at its place."""
        if one.outcome.source is None:
            return -1
        _, partition, offset = one.outcome.source
        there = self._sent.numbers_at(partition, offset)
        number = one.number
        if number is None:
            number = self._sent.find(partition, offset, one.outcome.timestamp_ms)
        if number is not None and number in there:
            return number
        self._examples.append(f"{one.outlet} {one.partition}/{one.offset}: {one.number} {there}")
        return -1

    def _judge(
        self, placed: Iterable[tuple[NumberedOutcome, int]], numbers: AbstractSet[int]
    ) -> AuditReport:
        partitions = {number: self._records[number].partition for number in numbers}
        end = max(numbers, default=0) + 1
        scopes = {Partition(_TOPIC, p): Scope(end, end) for p in set(partitions.values())}
        ledger = Ledger(scopes)
        for number, partition in sorted(partitions.items()):
            ledger.record(Partition(_TOPIC, partition), number)
        ranked = sorted(placed, key=lambda pair: _ORDER.index(pair[0].outlet.kind))
        for one, number in ranked:
            if number in numbers:
                _enter(ledger, one, (_TOPIC, partitions[number], number))
        return ledger.report()

    def _undue(self, outcomes: Iterable[tuple[int, Kind]]) -> Counter[Kind]:
        """Count records with a wrong outcome, by the kind that they have or should have."""
        undue: Counter[Kind] = Counter()
        for number, kind in outcomes:
            fate = self._records[number].fate
            due = _DUE.get(fate, "result") if self._routed or fate == "bad" else "result"
            if kind != due:
                undue["dead_letter" if "dead_letter" in (kind, due) else "filtered"] += 1
        return undue


def _enter(ledger: Ledger, one: NumberedOutcome, source: tuple[str, int, int]) -> None:
    place, outcome = (one.outlet, one.partition, one.offset), one.outcome
    if outcome.copy_route is not None:
        ledger.copy(*place, source, route=outcome.copy_route)
    else:
        ledger.outcome(*place, source, copies=outcome.copies)


def judged(servers: str, lives: Lives, topic: str, outcomes: Mapping[str, Kind]) -> dict[str, Any]:
    """Return the findings on a run that has drained.

    Args:
        servers: addresses without a proxy.
        lives: of the input's log, with the records that were sent.
        topic: the input.
        outcomes: topic -> kind of the outcomes in it.
    """
    kafka = KafkaSettings(bootstrap_servers=servers)
    with Admin(kafka) as admin, TopicReader(kafka) as reader:
        required = lives.finished | _remaining(admin, reader, lives.sent, topic)
        ledger = NumberedLedger(lives.sent, required, routed="filtered" in outcomes.values())
        for name, kind in outcomes.items():
            for record in reader.read(name, admin.end_offsets(name)):
                if (outcome := read_outcome(kind, record)) is not None:
                    place = (Outlet(kind, name), record.partition, record.offset)
                    ledger.add(NumberedOutcome(*place, outcome, number_of(record.headers)))
            if reader.unread:
                raise AssertionError(f"{name} can't be read to its end: {reader.unread}")
    return ledger.report()


def _remaining(admin: Admin, reader: TopicReader, sent: Sent, topic: str) -> set[int]:
    """Return the numbers of the records that the input still has."""
    remaining = set()
    for record in reader.read(topic, admin.end_offsets(topic)):
        if (number := number_of(record.headers)) is not None:
            remaining.add(number)
            sent.found(number, record.partition, record.offset, record.timestamp_ms)
    return remaining
