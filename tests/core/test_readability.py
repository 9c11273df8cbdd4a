"""Readability: when a stream is judged unreadable, and what is held back until then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetterReason as R
from tests.support.records import item, raw
from worker.core.readability import LEAST, WINDOW, Readability
from worker.core.records import InvalidRecord
from worker.errors import StreamUnreadable


def bad(offset: int = 0, reason: R = R.PATH_MISSING) -> InvalidRecord:
    return InvalidRecord(raw(offset), reason, "no member at 'text'")


def feed(stream: Readability, *entries: object, now: float = 0.0) -> list[bool]:
    return [stream.note(entry, now) for entry in entries]  # type: ignore[arg-type]


def test_the_first_hundred_are_held_and_stop_the_worker() -> None:
    stream = Readability(0.9)
    assert feed(stream, *map(bad, range(LEAST - 1))) == [True] * (LEAST - 1)
    with pytest.raises(StreamUnreadable) as caught:
        stream.note(bad(99), 0.0)
    for words in (
        "100 of the last 100 records",
        "path_missing (in[0] offset 99: no member at 'text')",
        "max_unreadable_ratio is 0.9",
        "The last 100 of them were neither published nor committed",
    ):
        assert words in str(caught.value)


def test_most_of_the_first_hundred_is_enough() -> None:
    stream = Readability(0.9)
    feed(stream, *[item()] * 9, *[bad()] * 90)
    with pytest.raises(StreamUnreadable, match="91 of the last 100"):
        stream.note(bad(), 0.0)


def test_a_share_that_is_just_borne_stops_nobody() -> None:
    stream = Readability(0.9)
    for _ in range(400):
        feed(stream, item(), *[bad()] * 9)
    with pytest.raises(StreamUnreadable, match="901 of the last 1000"):
        stream.note(bad(), 0.0)


def test_each_reason_counts_for_itself() -> None:
    """A topic of many kinds of rubbish is no wrong setting."""
    stream = Readability(0.6)
    for _ in range(WINDOW):
        assert feed(stream, bad(), bad(reason=R.NOT_JSON)) == [True, True]


def test_old_records_are_forgotten() -> None:
    stream = Readability(0.9)
    feed(stream, *[item()] * (5 * WINDOW), *[bad()] * 900)
    with pytest.raises(StreamUnreadable, match="901 of the last 1000"):
        stream.note(bad(), 0.0)


def test_one_that_can_be_read_lets_those_before_it_go() -> None:
    stream = Readability(0.9)
    assert feed(stream, item(), bad(), bad(), item(), bad()) == [False, True, True, False, True]
    assert not stream.waited(0.0)


def test_tombstones_are_held_behind_others_and_count_for_nothing() -> None:
    stream = Readability(0.0)
    tombstone = bad(reason=R.NULL_VALUE)
    assert feed(stream, *[tombstone] * (2 * WINDOW)) == [False] * (2 * WINDOW)
    assert feed(stream, bad(), tombstone, item()) == [True, True, False]


def test_turned_off_it_holds_nothing_and_stops_nobody() -> None:
    stream = Readability(1.0)
    assert feed(stream, *[bad()] * (2 * WINDOW)) == [False] * (2 * WINDOW)
    assert stream.waited(0.0)


def test_a_lone_one_goes_on_once_nothing_has_come_for_a_while() -> None:
    stream = Readability(0.9)
    stream.note(bad(), 50.0)
    stream.polled(1, 50.0)
    stream.polled(0, 50.5)
    stream.polled(0, 52.0)
    assert not stream.waited(52.4)
    assert stream.waited(52.5)
    assert stream.waited(52.6)


def test_a_worker_that_stood_still_does_not_take_that_for_quiet() -> None:
    """Only empty polls tell that nothing came."""
    stream = Readability(0.9)
    stream.note(bad(), 50.0)
    stream.polled(0, 50.1)
    stream.polled(1, 57.0)
    assert not stream.waited(57.0)


def test_a_trickle_goes_on_after_a_longer_while() -> None:
    stream = Readability(0.9)
    for tick in range(10):
        stream.note(bad(), 50.0 + tick)
        stream.polled(1, 50.0 + tick)
        assert not stream.waited(50.0 + tick)
    assert stream.waited(60.0)
    stream.note(bad(), 60.0)  # it begins to wait for itself
    assert not stream.waited(69.9)
    assert stream.waited(70.0)


@given(st.lists(st.sampled_from([None, R.NOT_JSON, R.PATH_MISSING, R.NULL_VALUE]), max_size=400))
def test_it_stops_exactly_where_a_share_is_above_the_ratio(kinds: list[R | None]) -> None:
    stream, seen = Readability(0.7), list[R | None]()
    for kind in kinds:
        if kind is not R.NULL_VALUE:
            seen.append(kind)
        over = len(seen) >= LEAST and kind not in (None, R.NULL_VALUE)
        over = over and seen[-WINDOW:].count(kind) > 0.7 * len(seen[-WINDOW:])
        entry = bad(reason=kind) if kind else item()
        if over:
            with pytest.raises(StreamUnreadable):
                stream.note(entry, 0.0)
            return
        stream.note(entry, 0.0)
