"""PredictionCache: what was said is said again, word for word, within a bound of memory."""

from __future__ import annotations

import tracemalloc

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
    assert cache.get(cache.key("a text")) is long
    for other in ("A text", "a text ", "a tex", "", "a text\ud800", "a text\ufffd"):
        assert cache.get(cache.key(other)) is None


def test_a_key_is_as_long_for_a_megabyte_and_says_nothing_to_another_cache() -> None:
    one, other = PredictionCache(10_000), PredictionCache(10_000)
    assert len(one.key("")) == len(one.key("x" * 1_000_000)) == 16
    assert one.key("a text") != other.key("a text")


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = PredictionCache(4_000)
    full = 0
    while len(cache) == full:
        keep(cache, full)
        full += 1  # the last of them made the first go
    assert known(cache, 0, 2) == [2]  # 2 was used just now, 1 was not
    keep(cache, full)
    assert known(cache, 1, 2, full) == [2, full]


def test_putting_twice_is_counted_once() -> None:
    cache = PredictionCache(10_000)
    keep(cache, 1)
    before = cache.size
    keep(cache, 1)
    assert (cache.size, len(cache)) == (before, 1)


@given(st.lists(st.integers(0, 60), max_size=200), st.integers(100, 20_000))
def test_the_bound_holds_and_what_is_held_is_what_is_counted(
    numbers: list[int], max_bytes: int
) -> None:
    """Whatever comes in whatever order; an empty table may be more than a tiny bound."""
    cache = PredictionCache(max_bytes)
    for number in numbers:
        keep(cache, number)
        assert cache.size <= max_bytes or len(cache) == 0
    held = known(cache, *range(61))
    fresh = PredictionCache(10**9)
    keep(fresh, *held)
    assert len(held) == len(cache)
    assert cache.size >= fresh.size  # the table keeps the room that it once had


def test_its_size_is_what_the_interpreter_allocates() -> None:
    """Within a tenth, for few labels and for many."""
    for labels in (2, 28):
        cache = PredictionCache(10**9)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2_000):
            cache.put(cache.key(f"text {number}"), said(number, labels))
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert abs(after - before - cache.size) < 0.1 * cache.size
