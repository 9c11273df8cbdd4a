"""The limit of records a second."""

from __future__ import annotations

import pytest

from worker.core.allowance import Allowance


def taken(rate: float, seconds: float, step: float, most: int = 500) -> int:
    """Return how many records a worker takes that polls every `step` seconds."""
    allowance, total = Allowance(rate), 0
    for number in range(round(seconds / step)):
        records = allowance.limit(most, number * step)
        allowance.take(records)
        total += records
    return total


@pytest.mark.parametrize("rate", [1, 7, 100, 5_000])
@pytest.mark.parametrize("step", [0.01, 0.1])
def test_no_more_than_the_rate_is_taken_and_little_less(rate: float, step: float) -> None:
    seconds = 20
    assert rate * seconds * 0.97 - 1 <= taken(rate, seconds, step) <= rate * (seconds + 0.2) + 1


def test_a_pause_is_not_made_up_for() -> None:
    allowance = Allowance(100)
    allowance.limit(500, 0)
    assert allowance.limit(500, 1_000) == 20  # a fifth of a second's


def test_a_few_records_are_not_taken_alone() -> None:
    allowance = Allowance(100)
    assert [allowance.limit(500, now) for now in (0, 0.05, 0.1)] == [0, 0, 11]


def test_the_caller_may_take_less() -> None:
    allowance = Allowance(100)
    allowance.limit(500, 0)
    assert allowance.limit(5, 10) == 5
    allowance.take(5)
    assert allowance.limit(500, 10) == 15


def test_without_a_rate_there_is_no_limit() -> None:
    assert Allowance(None).limit(500, 0) == 500
