"""Windows of a long text: where they lie, and how their probabilities give one row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import CARD
from worker.core.decisions.whole_texts import whole_texts
from worker.core.decisions.windows import Extent, WindowPlan, combined, window_plan
from worker.core.faults import Failed
from worker.core.records import ModelInput, Prediction
from worker.settings import InputSettings
from worker.settings.windows import Combine

PLAN = WindowPlan(stride=2, max_windows=3, combine="mean")


def plainly(tokens: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Cut as a loop would: ahead by `room - stride` until a window reaches the end."""
    start = 0
    while True:
        yield start, min(start + room, tokens)
        if start + room >= tokens:
            return
        start += room - stride


@given(st.integers(0, 300), st.integers(1, 40), st.data(), st.integers(1, 12), st.booleans())
def test_windows_are_those_of_a_plain_loop(
    tokens: int, room: int, data: st.DataObject, most: int, from_end: bool
) -> None:
    stride = data.draw(st.integers(0, room - 1))
    wanted = list(plainly(tokens, room, stride))[:most]
    if from_end:
        wanted = [(tokens - stop, tokens - start) for start, stop in wanted]
    assert WindowPlan(stride, most, "mean").cut(tokens, room, from_end=from_end) == wanted


@pytest.mark.parametrize("from_end", [True, False])
def test_only_the_first_window_is_cut_where_it_alone_counts(from_end: bool) -> None:
    wanted = [(8, 12)] if from_end else [(0, 4)]
    assert WindowPlan(1, 9, "first").cut(12, 4, from_end=from_end) == wanted


@pytest.mark.parametrize(
    ("combine", "wanted"),
    [
        ("mean", (0.5, 0.5)),
        ("max", (0.9 / 1.8, 0.9 / 1.8)),
        ("length_weighted", (0.7, 0.3)),
    ],
)
def test_a_combination_of_labels_of_which_one_applies_adds_up_to_1(
    combine: Combine, wanted: tuple[float, float]
) -> None:
    plan = WindowPlan(0, 9, combine)
    result = combined(plan, [(0.9, 0.1), (0.1, 0.9)], [12, 4], sums_to_one=True)
    assert result == pytest.approx(wanted, abs=1e-15)
    assert sum(result) == pytest.approx(1, abs=1e-15)


def test_the_highest_probability_of_an_independent_label_stays_as_it_is() -> None:
    plan = WindowPlan(0, 9, "max")
    assert combined(plan, [(0.9, 0.2), (0.1, 0.8)], [4, 4], sums_to_one=False) == (0.9, 0.8)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=30),
    st.sampled_from(["mean", "max", "length_weighted"]),
)
def test_a_combination_lies_within_the_windows(rows: list[list[float]], combine: Combine) -> None:
    """No probability is above 1, not even in its last digit."""
    tokens = list(range(1, len(rows) + 1))
    result = combined(WindowPlan(0, 99, combine), rows, tokens, sums_to_one=False)
    for value, column in zip(result, zip(*rows, strict=True), strict=True):
        assert min(column) - 1e-15 <= value <= min(max(column) + 1e-15, 1)


def test_one_window_keeps_its_probabilities_to_the_last_digit() -> None:
    row = (0.1, 0.2, 0.7)
    for combine in ("mean", "max", "first", "length_weighted"):
        assert combined(WindowPlan(0, 9, combine), [row], [7], sums_to_one=True) == row


def prediction(first: float, tokens: int = 8) -> Prediction:
    return Prediction((first, 1 - first), tokens, truncated=False)


WINDOWS = ModelInput(
    ids=((1,) * 8, (2,) * 8, (3,) * 5, (4,) * 3),
    positions=(1, 1, 0, 1),
    truncated=(False,) * 4,
    extents=(Extent(15, 15), Extent(15, 15), Extent(5, 5), Extent(15, 15)),
)


def test_a_text_has_its_result_once_its_last_window_has_one() -> None:
    results = [(1, prediction(0.5)), (1, prediction(0.75)), (0, prediction(0.25, 5))]
    card = replace(CARD, windows=PLAN)
    given_now = whole_texts(iter([*results, (1, prediction(1.0, 3))]), WINDOWS, card)
    assert list(given_now) == [
        (0, Prediction((0.25, 0.75), 5, truncated=False, windows=1, total_tokens=5)),
        (1, Prediction((0.75, 0.25), 15, truncated=False, windows=3, total_tokens=15)),
    ]


def test_a_text_fails_with_its_first_window_that_does() -> None:
    first, second = Failed(ValueError("first"), 1), Failed(ValueError("second"), 1)
    results = [(1, prediction(0.5)), (1, first), (0, prediction(0.25, 5)), (1, second)]
    whole = dict(whole_texts(iter(results), WINDOWS, replace(CARD, windows=PLAN)))
    assert whole[1] is first
    assert isinstance(whole[0], Prediction)


def test_a_model_without_windows_has_a_result_for_each_row() -> None:
    results = [(1, prediction(0.5)), (0, prediction(0.25))]
    assert list(whole_texts(iter(results), WINDOWS, CARD)) == results


def test_the_settings_ask_for_windows_or_not() -> None:
    assert window_plan(InputSettings()) is None
    asked = window_plan(InputSettings(overflow="windows", stride=2, max_windows=3))
    assert asked == PLAN
    assert PLAN.recipe == "windows:mean:2:3"
