"""PredictionCache: predictions are returned unchanged, within a limit of memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.cache import PredictionCache
from worker.core.records import Prediction


def prediction(number: int, labels: int = 2) -> Prediction:
    """Return a prediction that shares no object with another."""
    return Prediction(tuple(number + n + 0.5 for n in range(labels)), 300 + number, truncated=False)


def store(cache: PredictionCache, *numbers: int) -> None:
    for number in numbers:
        cache.put(cache.key(f"text {number}"), prediction(number))


def cached(cache: PredictionCache, *numbers: int) -> list[int]:
    return [n for n in numbers if cache.get(cache.key(f"text {n}"))]


def test_only_stored_predictions_are_returned() -> None:
    cache = PredictionCache(10_000)
    long = Prediction((0.25, 0.75), 512, truncated=True)
    cache.put(cache.key("a text"), long)
    assert cache.get(cache.key("a text")) == long
    in_windows = Prediction((0.25, 0.5, 0.25), 700, truncated=True, windows=2, total_tokens=900)
    cache.put(cache.key("a long text"), in_windows)
    assert cache.get(cache.key("a long text")) == in_windows
    for other in ("A text", "a text ", "a tex", "", "a text\ud800", "a text\ufffd"):
        assert cache.get(cache.key(other)) is None


def test_keys_have_one_length_and_differ_between_caches() -> None:
    cache, other = PredictionCache(10_000), PredictionCache(10_000)
    assert len(cache.key("")) == len(cache.key("x" * 1_000_000)) == 16
    assert cache.key("a text") != other.key("a text")


def capacity(cache: PredictionCache) -> int:
    """Return how many texts fill the cache: the next one makes it drop entries."""
    put = 0
    while len(cache) == put:
        store(cache, put)
        put += 1
    return put - 1


def test_entries_used_within_half_a_cache_of_texts_stay() -> None:
    cache = PredictionCache(10_000)
    full = capacity(cache)
    half = full // 2
    assert cached(cache, *range(full + 1)) == list(range(half, full + 1))
    cache = PredictionCache(10_000)
    for number in range(10 * full):
        store(cache, number)
        if number % (half - 1) == 0:
            assert cached(cache, 0) == [0]  # used in each round, so never dropped
    assert cached(cache, 1) == []


def test_storing_a_text_twice_counts_once() -> None:
    cache = PredictionCache(10_000)
    store(cache, 1)
    before = cache.size
    store(cache, 1)
    assert (cache.size, len(cache)) == (before, 1)


@given(st.lists(st.integers(0, 60), max_size=200), st.integers(100, 20_000))
def test_the_size_is_limited_and_the_last_entry_is_cached(
    numbers: list[int], max_bytes: int
) -> None:
    """For any texts in any order; a cache without room for two entries stores none."""
    cache = PredictionCache(10**9)
    store(cache, 1)
    entry = cache.size
    cache = PredictionCache(max_bytes)
    for number in numbers:
        store(cache, number)
        assert cache.size <= max_bytes
        assert cached(cache, number) == ([number] if max_bytes >= 2 * entry else [])
    held = cached(cache, *range(61))
    assert len(held) == len(cache)
    fresh = PredictionCache(10**9)
    store(fresh, *held)
    assert cache.size == fresh.size


@pytest.mark.parametrize("labels", [2, 28])
def test_the_size_is_an_upper_bound_of_the_allocated_memory(labels: int) -> None:
    """Just after the tables grew, the bound is nearly exact."""
    cache = PredictionCache(10**9)
    predictions = [prediction(number, labels) for number in range(1_400)]
    shares = {}
    tracemalloc.start()
    for number, entry in enumerate(predictions, start=1):
        cache.put(cache.key(f"text {number}"), entry)
        if number in (1_365, 1_366, 1_400):
            shares[number] = tracemalloc.get_traced_memory()[0] / cache.size
    tracemalloc.stop()
    assert 0.75 < shares[1_365] < shares[1_400] < shares[1_366] < 1.01
    assert shares[1_366] > 0.95
