"""The ledger by numbers finds what `streamlabel audit` finds, where places have several records."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.numbered_ledger import NumberedLedger, NumberedOutcome
from tests.chaos.sent import Fate, Sent, SentRecord
from worker.core.outcome_order import Outlet
from worker.core.replay_outcomes import Kind
from worker.core.route_headers import CopyNote
from worker.kafka_io.audit_outcomes import AuditedOutcome

# Two lives of one partition: numbers 0 to 3, and then 4 to 7 at the same offsets.
_LIVES = 2
_OFFSETS = 4
_REQUIRED = {0, 1, 4, 5, 6, 7}


def _sent(fates: dict[int, Fate] | None = None) -> Sent:
    sent = Sent()
    for number in range(_LIVES * _OFFSETS):
        fate = (fates or {}).get(number, "post")
        sent.note(number, SentRecord(fate, 0, number % _OFFSETS, timestamp_ms=1000 + number))
    return sent


def _outcome(number: int, offset: int, kind: Kind = "result", **more: Any) -> NumberedOutcome:
    source = ("in", 0, number % _OFFSETS)
    outcome = AuditedOutcome(source, 1000 + number, None, b"", **more)
    return NumberedOutcome(Outlet(kind, kind), 0, offset, outcome, number)


def _report(
    outcomes: list[NumberedOutcome], fates: dict[int, Fate] | None = None, *, routed: bool = False
) -> dict[str, Any]:
    ledger = NumberedLedger(_sent(fates), _REQUIRED, routed=routed)
    for outcome in outcomes:
        ledger.add(outcome)
    return ledger.report()


def _found(report: dict[str, Any]) -> dict[str, int]:
    """Return the offences, and the records that the log lost."""
    names = ("missing", "duplicated", "reordered", "orphans", "uncopied")
    names += ("lost", "undue_dead_letters", "undue_filtered")
    return {name: report[name] for name in names if report[name]}


def test_records_that_a_life_took_along_are_lost_and_not_missing() -> None:
    report = _report([_outcome(n, at) for at, n in enumerate((0, 1, 2, 4, 5, 6, 7))])
    assert _found(report) == {"lost": 1}
    assert (report["consumed"], report["published"]) == (7, 7)


@pytest.mark.parametrize("gone", sorted(_REQUIRED))
def test_a_record_that_was_passed_or_remains_is_missing_without_an_outcome(gone: int) -> None:
    outcomes = [_outcome(n, at) for at, n in enumerate(sorted(_REQUIRED - {gone}))]
    assert _found(_report(outcomes)) == {"missing": 1, "lost": 2}


@pytest.mark.parametrize("again", [1, 2, 5])
def test_a_second_outcome_is_a_duplicate_in_each_life(again: int) -> None:
    numbers = (0, 1, 2, 4, 5, 6, 7, again)
    report = _report([_outcome(n, at) for at, n in enumerate(numbers)])
    assert _found(report) == {"duplicated": 1, "lost": 1}


def test_outcomes_of_another_order_are_found_unless_their_log_is_gone() -> None:
    reordered = [_outcome(n, at) for at, n in enumerate((0, 1, 5, 4, 6, 7))]
    assert _found(_report(reordered)) == {"reordered": 1, "lost": 2}
    late = [_outcome(n, at) for at, n in enumerate((0, 1, 4, 5, 2, 6, 7))]
    assert _found(_report(late)) == {"lost": 1}


def test_an_outcome_at_a_place_that_its_record_never_had_is_an_orphan() -> None:
    outcomes = [_outcome(n, at) for at, n in enumerate(sorted(_REQUIRED))]
    source = ("in", 0, 3)
    moved = outcomes[-2]._replace(outcome=outcomes[-2].outcome._replace(source=source))
    nowhere = outcomes[-1]._replace(outcome=outcomes[-1].outcome._replace(source=None))
    report = _report([*outcomes[:-2], moved, nowhere])
    assert _found(report) == {"orphans": 2, "missing": 2, "lost": 2}


def test_a_wrong_kind_of_outcome_is_undue() -> None:
    fates: dict[int, Fate] = {4: "bad", 5: "spam"}
    kinds: dict[int, Kind] = {4: "dead_letter", 5: "filtered"}
    right = [_outcome(n, n, kinds.get(n, "result")) for n in sorted(_REQUIRED)]
    assert _found(_report(right, fates, routed=True)) == {"lost": 2}
    wrong = [_outcome(n, n) for n in sorted(_REQUIRED)]
    found = _found(_report(wrong, fates, routed=True))
    assert found == {"lost": 2, "undue_dead_letters": 1, "undue_filtered": 1}
    assert _found(_report(wrong, fates)) == {"lost": 2, "undue_dead_letters": 1}


def test_a_note_without_a_number_is_known_by_place_and_time() -> None:
    outcomes = [_outcome(n, n) for n in (0, 4, 6, 7)]
    notes = [_outcome(n, n, "filtered")._replace(number=None) for n in (1, 5)]
    fates: dict[int, Fate] = {1: "spam", 5: "spam"}
    assert _found(_report([*outcomes, *notes], fates, routed=True)) == {"lost": 2}


def test_an_announced_copy_must_be_there_in_each_life() -> None:
    note = CopyNote("angry", "copy")
    outcomes = [_outcome(n, n, copies=(note,)) for n in sorted(_REQUIRED)]
    copies = [_outcome(n, n, "copy", copy_route="angry") for n in sorted(_REQUIRED - {5})]
    report = _report([*outcomes, *copies])
    assert _found(report) == {"uncopied": 1, "lost": 2}
    assert report["copies"] == {"copy": 5}


def test_a_record_in_the_log_without_an_acknowledgement_must_have_its_outcome() -> None:
    sent = _sent()
    sent.sending(8, "bad")
    sent.found(8, 0, 4, 1008)

    def report(*outcomes: NumberedOutcome) -> dict[str, Any]:
        ledger = NumberedLedger(sent, {8})
        for outcome in outcomes:
            ledger.add(outcome)
        return ledger.report()

    source = ("in", 0, 4)
    outcome = _outcome(8, 0)
    outcome = outcome._replace(outcome=outcome.outcome._replace(source=source))
    dead = outcome._replace(outlet=Outlet("dead_letter", "dead_letter"))
    assert _found(report()) == {"missing": 1, "lost": 8}
    assert _found(report(outcome)) == {"lost": 8, "undue_dead_letters": 1}
    assert _found(report(dead._replace(number=None))) == {"lost": 8}
    assert report(dead)["required"] == 1
