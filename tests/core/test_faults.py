"""Faults: how errors are handled, and when the circuit breaker opens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.faults import (
    CircuitBreaker,
    Disposition,
    Failed,
    backoff,
    disposition,
    isolate,
    stack_hash,
)
from worker.errors import BrokerAway, CircuitOpen, ModelUnavailable, OutOfMemory, RecordRejected


@pytest.mark.parametrize(
    ("error", "records", "expected"),
    [
        (BrokerAway("gone"), 0, Disposition.RETRY),
        (BrokerAway("gone"), 8, Disposition.RETRY),
        (RecordRejected("empty_text", "blank"), 1, Disposition.DEAD_LETTER),
        (ModelUnavailable("none"), 8, Disposition.STOP),
        (KeyboardInterrupt(), 8, Disposition.STOP),
        (ValueError("unknown"), 0, Disposition.STOP),
        (ValueError("on a batch"), 8, Disposition.SPLIT),
        (MemoryError(), 2, Disposition.SPLIT),
        (OutOfMemory("too large"), 2, Disposition.SPLIT),
        (OutOfMemory("too large"), 1, Disposition.DEAD_LETTER),
        (OutOfMemory("not in the model"), 0, Disposition.STOP),
        (ValueError("alone"), 1, Disposition.DEAD_LETTER),
    ],
)
def test_the_disposition_of_each_error(
    error: BaseException, records: int, expected: Disposition
) -> None:
    assert disposition(error, records=records) is expected


@given(st.integers(0, 40), st.sets(st.integers(0, 39)))
def test_failing_items_are_isolated_and_the_others_get_results(size: int, bad: set[int]) -> None:
    def run(items: list[int]) -> list[int]:
        if bad & set(items):
            raise ValueError("poison")
        return [n * 10 for n in items]

    results = isolate(list(range(size)), run)  # type: ignore[arg-type]
    assert len(results) == size
    for n, result in enumerate(results):
        if n in bad:
            assert isinstance(result, Failed)
            assert result.attempts == 2
        else:
            assert result == n * 10


def test_a_temporary_fault_does_not_fail_the_record() -> None:
    calls = []

    def run(items: list[str]) -> list[str]:
        calls.append(items)
        if len(calls) == 1:
            raise MemoryError
        return items

    assert isolate(["a"], run) == ["a"]  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ModelUnavailable("gone"), BrokerAway("away")])
def test_an_error_that_no_record_causes_is_raised(error: Exception) -> None:
    def run(_: object) -> list[str]:
        raise error

    with pytest.raises(type(error)):
        isolate(["a", "b"], run)


def test_a_fatal_error_on_the_second_try_is_raised() -> None:
    errors = iter([ValueError("first"), ModelUnavailable("then")])

    def run(_: object) -> list[str]:
        raise next(errors)

    with pytest.raises(ModelUnavailable):
        isolate(["a"], run)


def test_the_breaker_opens_on_consecutive_failures() -> None:
    breaker = CircuitBreaker(3, ratio=1.0)
    for failed in (True, True, False, True, True):
        breaker.note(failed=failed)
    with pytest.raises(CircuitOpen, match=r"3 records in a row .*max_consecutive_dead_letters"):
        breaker.note(failed=True)


def test_the_breaker_opens_on_a_share_of_the_last_thousand() -> None:
    """Every other record fails, never two in a row. It opens as soon as the share is certain."""
    breaker = CircuitBreaker(100, ratio=0.2)
    for n in range(400):
        breaker.note(failed=n % 2 == 0)
    with pytest.raises(CircuitOpen, match=r"201 of the last 401 .*max_dead_letter_ratio"):
        breaker.note(failed=True)


def test_the_breaker_forgets_failures_a_thousand_records_ago() -> None:
    breaker = CircuitBreaker(1_000, ratio=0.3)
    for n in range(10_000):
        breaker.note(failed=n % 1_000 < 300)
    for _ in range(300):
        breaker.note(failed=True)
    with pytest.raises(CircuitOpen, match="301 of the last 1000"):
        breaker.note(failed=True)


@given(st.lists(st.booleans(), max_size=2_000))
def test_a_ratio_of_one_disables_the_share(failures: list[bool]) -> None:
    breaker = CircuitBreaker(5_000, ratio=1.0)
    opened = None
    try:
        for failed in failures:
            breaker.note(failed=failed)
    except CircuitOpen as error:
        opened = error
    assert opened is None, f"{sum(failures)} of {len(failures)}"


def test_backoff_grows_up_to_its_limit() -> None:
    assert all(0 <= backoff(attempt) <= 10.0 for attempt in range(200))
    assert max(backoff(0) for _ in range(200)) <= 0.1
    assert max(backoff(30) for _ in range(200)) > 1.0


def fail(error: Exception) -> None:
    raise error


def deeper(error: Exception) -> None:
    fail(error)


def caught(run: Callable[[Exception], None], error: Exception) -> Exception:
    with pytest.raises(type(error)) as raised:
        run(error)
    return raised.value


def test_equal_faults_have_equal_stack_hashes() -> None:
    first = stack_hash(caught(fail, ValueError("about one text")))
    assert first == stack_hash(caught(fail, ValueError("about another")))
    assert first != stack_hash(caught(fail, TypeError("about one text")))
    assert first != stack_hash(caught(deeper, ValueError("deeper")))
    assert len(first) == 16
