"""The checker of every prefix finds each way in which a transaction can be torn."""

from __future__ import annotations

import pytest

from tests.chaos.prefixes import Prefixes
from tests.chaos.sent import Sent, SentRecord
from worker.core.records import Partition
from worker.core.route_headers import CopyNote
from worker.kafka_io.audit_outcomes import AuditedOutcome

_IN, _OUT = Partition("in", 0), Partition("out", 0)


def _outcome(offset: int, *copies: CopyNote, copy_route: str | None = None) -> AuditedOutcome:
    return AuditedOutcome(
        ("in", 0, offset), 0, None, b"", copies=copies, copy_route=copy_route, routed=bool(copies)
    )


def test_whole_transactions_break_no_promise() -> None:
    prefixes, note = Prefixes(), CopyNote("angry", "copies")
    prefixes.expect({_IN: 2}, {_OUT: 4})
    for offset in (0, 1):
        prefixes.see(_outcome(offset, note), "out")
        prefixes.see(_outcome(offset, copy_route="angry"), "copies")
    prefixes.covered({_IN: 2})
    prefixes.reached({_OUT: 3}, {_IN: 0})
    assert prefixes.waiting
    prefixes.reached({_OUT: 4}, {_IN: 0})
    assert not prefixes.waiting
    assert not prefixes.torn
    assert prefixes.checks == {"seen_once": 4, "covered": 1, "complete": 2}


def test_an_outcome_without_its_offset_is_found() -> None:
    prefixes = Prefixes()
    prefixes.see(_outcome(2), "out")
    prefixes.covered({_IN: 2})
    prefixes.covered({})
    assert prefixes.torn == {"covered": 1}
    assert "2 is visible; committed: 2" in prefixes.examples[0]


def test_an_offset_without_its_outcome_is_found() -> None:
    prefixes = Prefixes()
    prefixes.see(_outcome(0), "out")
    prefixes.expect({_IN: 2}, {_OUT: 1})
    prefixes.reached({_OUT: 1}, {_IN: 0})
    assert prefixes.torn == {"complete": 1}


def test_an_offset_without_a_copy_is_found_once() -> None:
    prefixes = Prefixes()
    prefixes.see(_outcome(0, CopyNote("angry", "copies")), "out")
    for _ in range(2):
        prefixes.expect({_IN: 1}, {_OUT: 1})
    prefixes.reached({_OUT: 1}, {_IN: 0})
    assert prefixes.torn == {"complete": 1}


@pytest.mark.parametrize("copy", [None, "angry"])
def test_an_outcome_that_is_seen_twice_is_found(copy: str | None) -> None:
    prefixes = Prefixes()
    for _ in range(2):
        prefixes.see(_outcome(0, copy_route=copy), "out")
    assert prefixes.torn == {"seen_once": 1}


def test_records_that_retention_removed_need_no_outcome() -> None:
    prefixes = Prefixes()
    prefixes.expect({_IN: 7}, {_OUT: 0})
    prefixes.reached({}, {_IN: 7})
    prefixes.expect({_IN: 7}, {_OUT: 0})
    prefixes.reached({}, {_IN: 0})  # a follower that leads may not know of it yet
    assert not prefixes.torn


def test_a_record_of_another_program_is_left_out() -> None:
    prefixes = Prefixes()
    prefixes.see(AuditedOutcome(None, 0, None, b""), "out")
    assert not prefixes.checks


def test_sent_records_are_counted_while_the_input_has_them() -> None:
    sent = Sent()
    for offset in range(4):
        sent.note(offset, SentRecord("bad" if offset % 2 else "post", 0, offset))
    assert sent.total == 4
    assert (sent.count("bad"), sent.count("bad", {0: 2}), sent.count("news")) == (2, 1, 0)


def test_records_of_two_lives_at_one_place_are_told_apart_by_number() -> None:
    prefixes = Prefixes()
    prefixes.expect({}, {_OUT: 2}, frozenset({0, 7}))
    prefixes.see(_outcome(0), "out", 0, ended=True)
    prefixes.see(_outcome(0), "out", 7)
    prefixes.covered({_IN: 1})
    prefixes.reached({_OUT: 2}, {})
    assert not prefixes.torn
    assert prefixes.checks == {"seen_once": 2, "covered": 1, "complete": 2}


def test_a_number_without_an_outcome_or_a_copy_is_found() -> None:
    prefixes = Prefixes()
    prefixes.see(_outcome(0, CopyNote("angry", "copies")), "out", 7)
    for _ in range(2):
        prefixes.expect({}, {}, frozenset({7, 8}))
    prefixes.reached({}, {})
    assert prefixes.torn == {"complete": 2}
    assert "number 8 has no outcome" in prefixes.examples[0]


def test_a_number_that_is_seen_twice_is_found_at_any_place() -> None:
    prefixes = Prefixes()
    prefixes.see(_outcome(0), "out", 7, ended=True)
    prefixes.see(_outcome(3), "out", 7)
    assert prefixes.torn == {"seen_once": 1}


def test_an_outcome_of_an_ended_life_has_no_offset_that_covers_it() -> None:
    prefixes = Prefixes()
    prefixes.see(_outcome(5), "out", 5, ended=True)
    prefixes.covered({_IN: 0})
    assert not prefixes.torn
    prefixes.see(_outcome(0), "out", 6)
    prefixes.covered({_IN: 0})
    assert prefixes.torn == {"covered": 1}
