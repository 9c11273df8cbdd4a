"""Readability: when a stream counts as unreadable, and which records are held back until then."""

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
    for part in (
        "100 of the last 100 records",
        "path_missing (in[0] offset 99: no member at 'text')",
        "max_unreadable_ratio is 0.9",
        "The last 100 of them were neither published nor committed",
    ):
        assert part in str(caught.value)


def test_an_unreadable_share_of_the_first_hundred_stops_the_worker() -> None:
    stream = Readability(0.9)
    feed(stream, *[item()] * 9, *[bad()] * 90)
    with pytest.raises(StreamUnreadable, match="91 of the last 100"):
        stream.note(bad(), 0.0)


def test_a_share_equal_to_the_ratio_is_allowed() -> None:
    stream = Readability(0.9)
    for _ in range(400):
        feed(stream, item(), *[bad()] * 9)
    with pytest.raises(StreamUnreadable, match="901 of the last 1000"):
        stream.note(bad(), 0.0)


def test_each_reason_is_counted_separately() -> None:
    """A topic with many kinds of unreadable records is not a wrong setting."""
    stream = Readability(0.6)
    for _ in range(WINDOW):
        assert feed(stream, bad(), bad(reason=R.NOT_JSON)) == [True, True]


def test_old_records_are_forgotten() -> None:
    stream = Readability(0.9)
    feed(stream, *[item()] * (5 * WINDOW), *[bad()] * 900)
    with pytest.raises(StreamUnreadable, match="901 of the last 1000"):
        stream.note(bad(), 0.0)


def test_a_readable_record_releases_those_before_it() -> None:
    stream = Readability(0.9)
    assert feed(stream, item(), bad(), bad(), item(), bad()) == [False, True, True, False, True]
    assert not stream.waited(0.0)


def test_tombstones_are_held_with_others_and_not_counted() -> None:
    stream = Readability(0.0)
    tombstone = bad(reason=R.NULL_VALUE)
    assert feed(stream, *[tombstone] * (2 * WINDOW)) == [False] * (2 * WINDOW)
    assert feed(stream, bad(), tombstone, item()) == [True, True, False]


def test_a_ratio_of_one_disables_the_check() -> None:
    stream = Readability(1.0)
    assert feed(stream, *[bad()] * (2 * WINDOW)) == [False] * (2 * WINDOW)
    assert stream.waited(0.0)


def test_a_single_record_is_released_after_a_quiet_time() -> None:
    stream = Readability(0.9)
    stream.note(bad(), 50.0)
    stream.polled(1, 50.0)
    stream.polled(0, 50.5)
    stream.polled(0, 52.0)
    assert not stream.waited(52.4)
    assert stream.waited(52.5)
    assert stream.waited(52.6)


def test_time_without_polls_is_not_quiet_time() -> None:
    """Only empty polls show that no record has arrived."""
    stream = Readability(0.9)
    stream.note(bad(), 50.0)
    stream.polled(0, 50.1)
    stream.polled(1, 57.0)
    assert not stream.waited(57.0)


def test_a_slow_stream_is_released_after_a_longer_time() -> None:
    stream = Readability(0.9)
    for tick in range(10):
        stream.note(bad(), 50.0 + tick)
        stream.polled(1, 50.0 + tick)
        assert not stream.waited(50.0 + tick)
    assert stream.waited(60.0)
    stream.note(bad(), 60.0)  # its own wait begins
    assert not stream.waited(69.9)
    assert stream.waited(70.0)


@given(st.lists(st.sampled_from([None, R.NOT_JSON, R.PATH_MISSING, R.NULL_VALUE]), max_size=400))
def test_the_worker_stops_exactly_when_a_share_exceeds_the_ratio(kinds: list[R | None]) -> None:
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
