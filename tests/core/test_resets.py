"""Resets of offsets: what they repeat and skip, and files of offsets."""

from __future__ import annotations

import pytest

from worker.core.bounds import Bound
from worker.core.records import Partition
from worker.core.resets import Place, Reset, outdated, parse_file, plan, shifted, without_range
from worker.errors import SettingsError

P0, P1 = Partition("in", 0), Partition("in", 1)


def place(committed: int | None, start: int = 10, end: int = 100) -> Place:
    return Place(P0, start, end, committed)


@pytest.mark.parametrize(
    ("committed", "wanted", "after", "repeated", "skipped"),
    [
        (50, 30, 30, 20, 0),
        (50, 80, 80, 0, 30),
        (50, 50, 50, 0, 0),
        (50, 0, 10, 40, 0),  # before the log
        (50, 500, 100, 0, 50),  # beyond it
        (5, 20, 20, 0, 10),  # what retention has removed can't be skipped
        (500, 90, 90, 10, 0),  # the topic was created again: nothing beyond its end was read
        (None, 20, 20, 0, 0),
    ],
)
def test_a_reset_says_what_it_repeats_and_skips(
    committed: int | None, wanted: int, after: int, repeated: int, skipped: int
) -> None:
    (reset,) = plan([place(committed)], {P0: wanted})
    assert (reset.after, reset.repeated, reset.skipped) == (after, repeated, skipped)
    assert reset.changes is (after != committed)


def test_a_partition_without_a_wanted_offset_stays() -> None:
    other = Place(P1, 0, 9, 3)
    assert plan([place(50), other], {P1: 2}) == [Reset(other, 2, 2)]


@pytest.mark.parametrize(
    ("now", "holds"),
    [
        (Place(P0, 10, 100, 50), True),
        (Place(P0, 20, 900, 50), True),  # records arrive, and old ones are deleted
        (Place(P0, 10, 100, 51), False),
        (Place(P0, 10, 100, None), False),
        (Place(P0, 10, 100, 50, "a note"), False),
        (Place(P0, 31, 100, 50), False),  # the new offset was deleted
        (Place(P0, 0, 29, 50), False),  # the topic was created again
        (Place(P1, 10, 100, 50), False),
    ],
)
def test_a_plan_holds_while_the_group_is_where_it_was(now: Place, holds: bool) -> None:
    resets = plan([place(50)], {P0: 30})
    assert outdated(resets, [now]) == ([] if holds else [P0])


def test_a_partition_of_a_backfill_needs_its_range() -> None:
    """An offset without one could never be read by the backfill."""
    ranged = Place(P0, 0, 9, 3, Bound(1, 9).note())
    places = [ranged, Place(P1, 0, 9, None)]
    assert without_range(plan(places, {P0: 1, P1: 1}), places) == [P1]
    assert without_range(plan(places, {P0: 1}), places) == []
    assert without_range(plan([place(None)], {P0: 20}), [place(None)]) == []


def test_a_shift_moves_the_committed_offset() -> None:
    assert shifted([place(50), Place(P1, 0, 9, 3)], -7) == {P0: 43, P1: -4}


def test_nothing_is_shifted_without_an_offset() -> None:
    with pytest.raises(SettingsError, match=r"can't shift: no offset is committed of in\[0\]"):
        shifted([place(None), Place(P1, 0, 9, 3)], 1)


@pytest.mark.parametrize(
    "text",
    [
        "in,0,5\nin,1,7\n",
        "topic,partition,offset\nin,0,5\n\nin,1,7",
        '"in",0,5\r\n"in",1,7\r\n',  # as kafka-consumer-groups.sh writes it
        "us,in,0,5\nus, in, 1, 7",
        "GROUP,TOPIC,PARTITION,NEW-OFFSET\n".lower() + "us,in,0,5\nus,in,1,7\n",
    ],
)
def test_a_file_of_offsets_has_one_of_these_forms(text: str) -> None:
    assert parse_file(text, "us", [P0, P1]) == {P0: 5, P1: 7}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no line has an offset: expected topic,partition,offset"),
        ("topic,partition,offset", "no line has an offset"),
        ("in,0", "line 1: expected topic,partition,offset"),
        ("in,0,5\nin,one,7", "line 2: expected topic,partition,offset"),
        ("in,0,-5", "line 1: expected topic,partition,offset"),
        ("a,us,in,0,5", "line 1: expected topic,partition,offset"),
        ("in,0,5\nin,2,7", r"line 2: in\[2\] is no partition of the input"),
        ("in,0,5\nin,0,7", r"line 2: in\[0\] has an offset already"),
        ("them,in,0,5", "line 1 is of group 'them', not 'us'"),
    ],
)
def test_a_line_that_can_not_be_used_is_named(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        parse_file(text, "us", [P0, P1])
