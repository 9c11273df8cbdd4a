"""The range of each partition: chosen once, stored with the group's offsets."""

from __future__ import annotations

import pytest

from worker.core.bounds import Bound, Bounds, progress_of, read_note
from worker.core.records import Partition
from worker.errors import Fatal

P0, P1, P2 = (Partition("in", number) for number in range(3))
SPAN = "2h..now"


def note(start: int, end: int, lost: int = 0, span: str = SPAN, lost_to: int = 0) -> str:
    return Bound(start, end, lost, span, lost_to).note()


def test_a_note_returns_the_range() -> None:
    assert read_note(note(5, 9)) == Bound(5, 9, 0, SPAN)
    assert read_note(note(5, 9, 2)) == Bound(5, 9, 2, SPAN)


@pytest.mark.parametrize(
    "text", [None, "", "text", "[]", "7", "{}", '{"streamlabel_range": {"start": 1}}']
)
def test_a_note_of_another_program_has_no_range(text: str | None) -> None:
    assert read_note(text) is None


def test_the_first_choice_holds_until_the_group_has_another() -> None:
    bounds = Bounds(SPAN, "group")
    assert P0 not in bounds
    bounds.begin(P0, 5, 9)
    bounds.begin(P0, 6, 20)
    assert P0 in bounds
    assert bounds[P0] == Bound(5, 9, 0, SPAN)
    bounds.learn(P0, note(1, 4))  # another member owned it meanwhile
    assert bounds[P0] == Bound(1, 4, 0, SPAN)
    assert bounds.note(P0) == note(1, 4)


def test_a_range_ends_no_earlier_than_it_begins() -> None:
    bounds = Bounds(SPAN, "group")
    bounds.begin(P0, 9, 5)
    assert bounds[P0] == Bound(9, 9, 0, SPAN)


def test_an_offset_without_a_range_is_not_of_a_backfill() -> None:
    bounds = Bounds(SPAN, "group")
    bounds.learn(P0, "")
    with pytest.raises(Fatal, match=r"group 'group' has an offset of in\[0\] that belongs to no"):
        bounds[P0]
    bounds.learn(P0, note(1, 4))
    assert bounds[P0].end == 4


def test_a_group_has_one_range() -> None:
    bounds = Bounds(SPAN, "group")
    bounds.learn(P0, note(1, 4, span="1h..now"))
    with pytest.raises(Fatal, match=r"labels the range 1h\.\.now, not 2h\.\.now"):
        bounds[P0]


def test_an_offset_beyond_the_range_is_clipped() -> None:
    bounds = Bounds(SPAN, "group")
    assert bounds.clip(P0, 30) == 30  # its range is not known yet
    bounds.begin(P0, 5, 9)
    assert [bounds.clip(P0, offset) for offset in (5, 9, 30)] == [5, 9, 9]


def test_lost_offsets_of_the_range_are_counted_and_kept() -> None:
    """They outlive the worker in the note; one that learns an older note does not forget them."""
    bounds = Bounds(SPAN, "group")
    bounds.begin(P0, 5, 19)
    assert bounds.lose(P0, range(6, 8)) == range(6, 8)
    assert bounds.lose(P0, range(10, 30)) == range(10, 19)
    assert bounds.lose(P0, range(20, 30)) == range(19, 19)
    assert read_note(bounds.note(P0)) == Bound(5, 19, 11, SPAN, lost_to=19)
    bounds.learn(P0, note(5, 19, 1, lost_to=8))
    assert (bounds[P0].lost, bounds[P0].lost_to) == (11, 19)


def test_deleted_offsets_are_counted_once_however_often_they_are_read() -> None:
    """A worker gets the partition again at an offset before the gap, and the gap has grown."""
    bounds = Bounds(SPAN, "group")
    bounds.begin(P0, 0, 50)
    bounds.lose(P0, range(6, 40))
    bounds.learn(P0, note(0, 50))  # nothing beyond 6 was committed
    assert bounds.lose(P0, range(6, 40)) == range(6, 40)  # skipped, but no loss beside the first
    assert bounds[P0].lost == 34
    bounds.lose(P0, range(6, 45))
    assert bounds[P0].lost == 39


def test_a_gap_that_another_worker_found_is_counted_once() -> None:
    bounds = Bounds(SPAN, "group")
    bounds.begin(P0, 0, 50)
    bounds.lose(P0, range(6, 40))
    bounds.learn(P0, note(0, 50, 39, lost_to=45))
    bounds.lose(P0, range(6, 45))
    assert bounds[P0].lost == 39


def test_all_partitions_must_be_committed_to_their_end() -> None:
    bounds = Bounds(SPAN, "group")
    bounds.begin(P0, 5, 9)
    bounds.begin(P1, 0, 0)  # empty
    assert not bounds.reached([P0, P1], {P0: 9})
    assert not bounds.reached([P0, P1], {P0: 8, P1: 0})
    assert bounds.reached([P0, P1], {P0: 9, P1: 0})


def test_a_note_tells_when_the_range_was_chosen() -> None:
    bounds = Bounds(SPAN, "group")
    bounds.begin(P0, 5, 9, at_ms=1_800_000_000_000)
    assert read_note(bounds.note(P0)) == Bound(5, 9, 0, SPAN, at_ms=1_800_000_000_000)


def test_progress_counts_offsets_of_the_ranges() -> None:
    committed = {P0: (7, note(5, 9)), P1: (9, note(5, 9, 2))}
    some = progress_of([P0, P1, P2], committed)
    assert some == (6, 8, 2, 1)  # P2 has no range yet
    assert not some.finished
    assert not progress_of([P0, P1], committed).finished
    assert progress_of([P1], committed).finished
    assert progress_of([P0], {P0: (50, note(5, 9))}) == (4, 4, 0, 0)  # reset beyond its range
