"""PredictionCache: what was said is said again, word for word, within a bound of memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.cache import PredictionCache
from worker.core.records import Prediction


def said(number: int, labels: int = 2) -> Prediction:
    """A prediction that shares no object with another's."""
    return Prediction(tuple(number + n + 0.5 for n in range(labels)), 300 + number, truncated=False)


def keep(cache: PredictionCache, *numbers: int) -> None:
    for number in numbers:
        cache.put(cache.key(f"text {number}"), said(number))


def known(cache: PredictionCache, *numbers: int) -> list[int]:
    return [n for n in numbers if cache.get(cache.key(f"text {n}"))]


def test_what_was_put_comes_back_and_nothing_else() -> None:
    cache = PredictionCache(10_000)
    long = Prediction((0.25, 0.75), 512, truncated=True)
    cache.put(cache.key("a text"), long)
    assert cache.get(cache.key("a text")) == long
    for other in ("A text", "a text ", "a tex", "", "a text\ud800", "a text\ufffd"):
        assert cache.get(cache.key(other)) is None


def test_a_key_is_as_long_for_a_megabyte_and_says_nothing_to_another_cache() -> None:
    one, other = PredictionCache(10_000), PredictionCache(10_000)
    assert len(one.key("")) == len(one.key("x" * 1_000_000)) == 16
    assert one.key("a text") != other.key("a text")


def room(cache: PredictionCache) -> int:
    """How many texts fill it: the last of them made others go."""
    put = 0
    while len(cache) == put:
        keep(cache, put)
        put += 1
    return put - 1


def test_what_was_used_within_half_a_cache_of_texts_stays() -> None:
    cache = PredictionCache(10_000)
    full = room(cache)
    half = full // 2
    assert known(cache, *range(full + 1)) == list(range(half, full + 1))
    cache = PredictionCache(10_000)
    for number in range(10 * full):
        keep(cache, number)
        if number % (half - 1) == 0:
            assert known(cache, 0) == [0]  # however long ago it came, as it is asked for
    assert known(cache, 1) == []


def test_putting_twice_is_counted_once() -> None:
    cache = PredictionCache(10_000)
    keep(cache, 1)
    before = cache.size
    keep(cache, 1)
    assert (cache.size, len(cache)) == (before, 1)


@given(st.lists(st.integers(0, 60), max_size=200), st.integers(100, 20_000))
def test_the_bound_holds_and_the_last_one_is_there(numbers: list[int], max_bytes: int) -> None:
    """Whatever comes in whatever order; what has no room for two entries keeps none."""
    one = PredictionCache(10**9)
    keep(one, 1)
    entry = one.size
    cache = PredictionCache(max_bytes)
    for number in numbers:
        keep(cache, number)
        assert cache.size <= max_bytes
        assert known(cache, number) == ([number] if max_bytes >= 2 * entry else [])
    held = known(cache, *range(61))
    assert len(held) == len(cache)
    fresh = PredictionCache(10**9)
    keep(fresh, *held)
    assert cache.size == fresh.size


@pytest.mark.parametrize("labels", [2, 28])
def test_its_size_is_no_less_than_what_the_interpreter_allocates(labels: int) -> None:
    """Most when its tables have just grown, by a text; and then nearly to the byte."""
    cache = PredictionCache(10**9)
    answers = [said(number, labels) for number in range(1_400)]
    shares = {}
    tracemalloc.start()
    for number, answer in enumerate(answers, start=1):
        cache.put(cache.key(f"text {number}"), answer)
        if number in (1_365, 1_366, 1_400):
            shares[number] = tracemalloc.get_traced_memory()[0] / cache.size
    tracemalloc.stop()
    assert 0.75 < shares[1_365] < shares[1_400] < shares[1_366] < 1.01
    assert shares[1_366] > 0.95
