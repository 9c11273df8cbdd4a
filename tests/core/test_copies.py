"""Copies: a record is done with the last of its parts, and a lost copy keeps its name."""

from __future__ import annotations

from dataclasses import replace

from schemas.dead_letter import DeadLetterReason
from tests.support.doubles import outcome
from worker.core.copies import Whole, Wholes, same_part
from worker.core.records import Encoded
from worker.core.route_headers import COPY_HEADER


def copy_of(main: Encoded, route: str = "r", reason: DeadLetterReason | None = None) -> Encoded:
    return replace(main, topic="copies", route=route, copies=0, is_copy=True, reason=reason)


def with_copies(offset: int, copies: int) -> Encoded:
    return replace(outcome(offset), copies=copies)


def test_an_outcome_without_copies_is_complete_at_once() -> None:
    main = outcome(3)
    assert Wholes(lambda _: True).add([main]) == [Whole(main)]


def test_a_record_is_complete_with_its_last_part_whichever_it_is() -> None:
    wholes, main = Wholes(lambda _: True), with_copies(1, 2)
    first, second = copy_of(main, "a"), copy_of(main, "b")
    assert wholes.add([first]) == []
    assert wholes.add([main]) == []
    assert wholes.add([second]) == [Whole(main, [first, second])]
    other = with_copies(2, 1)
    assert wholes.add([other]) == []
    assert wholes.add([copy_of(other)]) == [Whole(other, [copy_of(other)])]


def test_the_parts_of_a_record_that_is_lost_are_forgotten() -> None:
    """Its partition was revoked between the outcome and the copy: nobody will send the rest."""
    kept, lost = with_copies(1, 1), with_copies(2, 1)
    wholes = Wholes(lambda ref: ref == kept.ref)
    wholes.add([kept, lost])
    wholes.forget_if_above(2)
    wholes.forget_if_above(1)
    assert wholes.add([copy_of(lost)]) == [], "its outcome is forgotten"
    assert wholes.add([copy_of(kept)]) == [Whole(kept, [copy_of(kept)])]


def test_a_dead_letter_in_place_of_a_copy_is_no_outcome() -> None:
    main = with_copies(1, 1)
    lost = copy_of(main, "angry")
    dead = replace(outcome(1), reason=DeadLetterReason.RESULT_TOO_LARGE, topic="dead")
    told = same_part(lost, dead)
    assert (told.is_copy, told.route, told.headers[-1]) == (True, "angry", (COPY_HEADER, b"angry"))
    assert told.identity != main.identity
    assert told.identity == lost.identity


def test_a_dead_letter_in_place_of_an_outcome_still_has_its_copies() -> None:
    main = with_copies(1, 2)
    dead = replace(outcome(1), reason=DeadLetterReason.RESULT_TOO_LARGE)
    assert same_part(main, dead).copies == 2
    assert same_part(outcome(1), dead) is dead
    assert same_part(main, main) is main
