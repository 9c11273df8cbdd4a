"""Drift: the newest results compared with the first ones."""

from __future__ import annotations

import math
import random
from collections import Counter
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.drift import Drift, cell_of, reading, stability_index

counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000), max_size=6)


def index_after(drift: Drift[str], mix: str, results: int, batch: int = 32) -> float:
    """Add results with the labels of `mix` in turn, and return the index."""
    labels = [mix[n % len(mix)] for n in range(results)]
    for start in range(0, results, batch):
        drift.note(labels[start : start + batch])
    return drift.index


# -- the index ---------------------------------------------------------------------------------


def test_the_index_equals_a_worked_example() -> None:
    """By hand: 0.1 * ln(0.6 / 0.5) - 0.1 * ln(0.4 / 0.5); half a result in 10**6 is negligible."""
    reference, current = {"p": 500_000, "n": 500_000}, {"p": 600_000, "n": 400_000}
    by_hand = 0.1 * math.log(1.2) - 0.1 * math.log(0.8)
    assert stability_index(reference, current) == pytest.approx(by_hand, rel=1e-4)


@given(counts, counts)
def test_the_index_is_finite_symmetric_and_never_negative(
    first: dict[str, int], other: dict[str, int]
) -> None:
    index = stability_index(first, other)
    assert 0 <= index + 1e-9 < math.inf
    assert index == pytest.approx(stability_index(other, first))
    assert stability_index(first, first) == pytest.approx(0)


def test_one_result_of_a_new_label_is_not_a_shift() -> None:
    reference = {"p": 1000, "n": 1000}
    assert stability_index(reference, {"p": 500, "n": 499, "new": 1}) < 0.01


@pytest.mark.parametrize(("cells", "bound"), [(2, 0.05), (7, 0.05), (28, 0.1)])
def test_chance_alone_is_not_a_shift(cells: int, bound: float) -> None:
    """At the default sizes, the index has the size that the module's docstring states."""
    chance = random.Random(7)

    def sample(size: int) -> Counter[int]:
        return Counter(chance.randrange(cells) for _ in range(size))

    indices = [stability_index(sample(2000), sample(1000)) for _ in range(100)]
    assert mean(indices) == pytest.approx((cells - 1) * (1 / 2000 + 1 / 1000), rel=0.25)
    assert max(indices) < bound


# -- over time ---------------------------------------------------------------------------------


def test_a_model_that_gives_one_label_to_all_texts_is_detected_until_it_recovers() -> None:
    drift = Drift[str](200, 100)
    assert index_after(drift, "pn", 1000) < 0.01
    assert index_after(drift, "p", 200) > 2
    assert index_after(drift, "pn", 200) < 0.01


@pytest.mark.parametrize("mix", ["ppn", "pppppn"])
def test_the_size_of_a_shift_has_its_usual_interpretation(mix: str) -> None:
    """From one half to two thirds is `moving`, to five sixths is `shifted`."""
    drift = Drift[str](1200, 600)
    index_after(drift, "pn", 1200)
    index = index_after(drift, mix, 660)
    assert (0.1 < index < 0.25) if mix == "ppn" else index > 0.25


def test_the_index_is_zero_until_reference_and_window_are_full() -> None:
    drift = Drift[str](200, 100)
    assert index_after(drift, "p", 200, batch=10) == 0
    assert index_after(drift, "n", 99, batch=1) == 0
    assert index_after(drift, "n", 1) > 2


def test_the_window_slides_and_the_reference_stays() -> None:
    """The index shows the whole change, even a slow one."""
    drift = Drift[str](100, 100)
    index_after(drift, "pn", 100)
    for share in range(1, 50):
        index_after(drift, "p" * share + "n", 300)
    assert drift.index > 1


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 200))
def test_the_window_has_its_size_and_little_more(batches: list[int], window: int) -> None:
    """It has no more counters than tenths."""
    drift = Drift[str](1, window)
    drift.note(["p"])
    for batch in batches:
        drift.note(["p"] * batch)
    held, came = drift._current.total(), sum(batches)
    assert min(came, window) <= held <= window * 1.1 + 2 * max(batches, default=0) + 1
    assert held == sum(block.total() for block in drift._blocks)
    assert len(drift._blocks) <= 12


def test_dropped_results_leave_no_cells() -> None:
    """For a million results of labels that occur once."""
    drift = Drift[int](1, 100)
    for n in range(3000):
        drift.note([n])
    assert len(drift._current) <= 110


def test_a_value_is_in_the_first_cell_that_it_does_not_exceed() -> None:
    """As in a Prometheus histogram, whose bounds belong to the lower cell."""
    bounds = (0.5, 0.9, 1.0)
    assert [cell_of(value, bounds) for value in (0.1, 0.5, 0.51, 0.9, 1.0)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("index", "word"),
    [
        (0, ""),
        (0.001, "stable"),
        (0.0999, "stable"),
        (0.1, "moving"),
        (0.25, "shifted"),
        (9, "shifted"),
    ],
)
def test_an_index_has_its_usual_interpretation(index: float, word: str) -> None:
    assert reading(index) == word
