"""Adds the outcomes that the audit reads to its ledger, and counts them by reason and topic.

Owns: the counts.
Thread: main, of `streamlabel audit`.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from worker.core.ledger import Ledger
from worker.core.outcome_order import Outlet
from worker.core.replay_outcomes import Kind
from worker.kafka_io.audit_outcomes import AuditedOutcome, read_outcome
from worker.kafka_io.reader import AuditRecord


class OutcomeTally:
    """Gives each outcome to the ledger.

    Args:
        ledger: with every record of the input.
        fitting: topics that hold records of others too: only those that a route sent count.
        group: consumer group that is judged.
        of_range: whether it labels a range. Then its outcomes name it, else they name none.

    Attributes:
        reasons: dead letters by reason, one for each record that counts as dead.
        filtered: filtered records by reason and route.
        digests: filtered records by the digest of the settings that decided.
        published_to: labelled records by the topic of their result.
    """

    def __init__(
        self, ledger: Ledger, fitting: Collection[str], group: str, *, of_range: bool
    ) -> None:
        self._ledger, self._fitting = ledger, fitting
        self._group, self._of_range = group, of_range
        self.reasons: Counter[str] = Counter()
        self.filtered: Counter[str] = Counter()
        self.digests: Counter[str] = Counter()
        self.published_to: Counter[str] = Counter()

    def add(self, outlet: Outlet, record: AuditRecord) -> None:
        """Add a record of a topic of outcomes."""
        outcome = read_outcome(outlet.kind, record)
        if outcome is None:
            self._ledger.leave_out("record without coordinates, of another producer")
        elif outlet.topic in self._fitting and not outcome.routed:
            self._ledger.leave_out("record that no route sent, in a topic that only fits its name")
        elif not is_own(outcome, self._group, of_range=self._of_range):
            self._ledger.leave_out("outcome of another group")
        elif outcome.copy_route is not None:
            self._add_copy(outlet, record, outcome, outcome.copy_route)
        elif outlet.kind == "copy":
            self._ledger.leave_out("result in a topic of copies")
        elif self._ledger.outcome(
            outlet,
            record.partition,
            record.offset,
            outcome.source,
            outcome.timestamp_ms,
            outcome.replay,
            copies=outcome.copies,
        ):
            self._count(outlet, outcome)

    def _add_copy(
        self, outlet: Outlet, record: AuditRecord, outcome: AuditedOutcome, route: str
    ) -> None:
        kind: Kind = "dead_letter" if outlet.kind == "dead_letter" else "copy"
        self._ledger.copy(
            Outlet(kind, outlet.topic),
            record.partition,
            record.offset,
            outcome.source,
            outcome.timestamp_ms,
            outcome.replay,
            route=route,
        )

    def _count(self, outlet: Outlet, outcome: AuditedOutcome) -> None:
        if outlet.kind == "result":
            self.published_to[outlet.topic] += 1
        elif outlet.kind == "filtered":
            self.filtered[outcome.reason] += 1
            self.digests[outcome.digest] += 1
        else:
            self.reasons[outcome.reason] += 1


def is_own(outcome: AuditedOutcome, group: str, *, of_range: bool) -> bool:
    """Return whether an outcome is of this group: those of a worker name none."""
    if outcome.group:
        return outcome.group == group.encode()
    return not of_range
