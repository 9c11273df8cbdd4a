"""Speed over the last while, and the time that is left."""

from __future__ import annotations

import pytest

from worker.core.speed import Speed, in_words


def test_nothing_is_known_before_the_second_reading() -> None:
    speed = Speed()
    assert speed.per_second is None
    assert speed.seconds_left(100) is None
    speed.note(5, 10)
    assert speed.per_second is None


def test_the_time_left_follows_from_the_speed() -> None:
    speed = Speed()
    for now in range(3):
        speed.note(now, 10 * now)
    assert speed.per_second == 10
    assert speed.seconds_left(120) == 10
    assert speed.seconds_left(0) == 0


def test_the_wait_before_the_first_progress_does_not_count() -> None:
    speed = Speed()
    for now in range(60):
        speed.note(now, 500)
    speed.note(60, 510)
    assert speed.per_second == 10


def test_only_the_last_while_counts() -> None:
    speed = Speed()
    for now in range(0, 100, 10):
        speed.note(now, min(50, now))
    assert speed.per_second == 0
    assert speed.seconds_left(100) is None
    speed.note(100, 30)  # the group was reset
    assert speed.per_second == 0


def test_two_readings_at_once_have_no_speed() -> None:
    speed = Speed()
    speed.note(1, 0)
    speed.note(1, 5)
    assert speed.per_second is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (65.4, "1:05"), (3_661, "1:01:01"), (90_000, "25:00:00")],
)
def test_a_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
