"""Calibration on synthetic models whose true temperature is known."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.decisions.calibration import (
    LabelledOutput,
    fit_temperature,
    negative_log_likelihood,
)
from worker.core.decisions.f1 import f1, fit_thresholds, mean_f1
from worker.core.decisions.folds import folds_of
from worker.core.decisions.held_out import calibrate
from worker.core.decisions.reliability import accuracy, bins_of, calibration_error, statements
from worker.settings.decision import LEAST_TEMPERATURE, MOST_TEMPERATURE

Table = list[tuple[float, ...]]


def softmax(logits: Sequence[float], temperature: float) -> tuple[float, ...]:
    scaled = [math.exp(logit / temperature) for logit in logits]
    return tuple(one / sum(scaled) for one in scaled)


def sigmoid(logits: Sequence[float], temperature: float) -> tuple[float, ...]:
    return tuple(1 / (1 + math.exp(-logit / temperature)) for logit in logits)


def exclusive_rows(temperature: float, count: int, seed: int = 0) -> list[LabelledOutput]:
    """Draw labels from the probabilities that logits have at a temperature."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        logits = tuple(chance.gauss(0, 3) for _ in range(3))
        true = chance.choices(range(3), softmax(logits, temperature))
        rows.append(LabelledOutput(logits, frozenset(true)))
    return rows


def independent_rows(temperature: float, count: int, seed: int = 0) -> list[LabelledOutput]:
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        logits = tuple(chance.gauss(-1, 3) for _ in range(3))
        truth = {i for i, p in enumerate(sigmoid(logits, temperature)) if chance.random() < p}
        rows.append(LabelledOutput(logits, frozenset(truth)))
    return rows


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    fit = fit_temperature(exclusive_rows(temperature, 2000), softmax, independent=False)
    assert fit.temperature == pytest.approx(temperature, rel=0.1)
    assert not fit.at_bound


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_of_independent_labels_is_found(temperature: float) -> None:
    fit = fit_temperature(independent_rows(temperature, 1500), sigmoid, independent=True)
    assert fit.temperature == pytest.approx(temperature, rel=0.08)


def test_the_temperature_is_the_best_of_a_fine_grid() -> None:
    rows = exclusive_rows(1.7, 300)
    fit = fit_temperature(rows, softmax, independent=False)
    truths = [row.truth for row in rows]
    losses = [
        negative_log_likelihood(
            [softmax(row.output, 1 + step / 50) for row in rows], truths, independent=False
        )
        for step in range(100)
    ]
    assert fit.loss <= min(losses) + 1e-5


def test_the_deeper_of_two_valleys_is_found() -> None:
    """A loss with valleys at 0.1 (shallow) and 8 (deep), as merged labels may have."""

    def rescale(_: object, temperature: float) -> tuple[float, ...]:
        at = math.log(temperature)
        near, far = abs(at - math.log(8)), abs(at - math.log(0.1))
        return (max(0.9 - near, 0.6 - far, 0.1), 0.0)

    fit = fit_temperature([LabelledOutput(None, frozenset({0}))], rescale, independent=False)
    assert fit.temperature == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize(("true", "bound"), [(0, LEAST_TEMPERATURE), (1, MOST_TEMPERATURE)])
def test_a_temperature_at_its_bound_is_told(true: int, bound: float) -> None:
    """A model that is always right wants no doubt at all, one that is always wrong no trust."""
    rows = [LabelledOutput((2.0, 0.0), frozenset({true}))] * 20
    fit = fit_temperature(rows, softmax, independent=False)
    assert (fit.temperature, fit.at_bound) == (pytest.approx(bound, rel=0.02), True)


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    truths = [frozenset({1})]
    for independent in (False, True):
        loss = negative_log_likelihood([(1.0, 0.0)], truths, independent=independent)
        assert 20 < loss < 30


def test_thresholds_have_the_highest_f1_that_any_number_has() -> None:
    rows = independent_rows(2.0, 200)
    table = [sigmoid(row.output, 1.0) for row in rows]
    truths = [row.truth for row in rows]
    fitted = fit_thresholds(table, truths, 3)
    for label, threshold in fitted.items():

        def score(at: float, label: int = label) -> float:
            decided = [row[label] >= at for row in table]
            has = [label in truth for truth in truths]
            right = sum(d and h for d, h in zip(decided, has, strict=True))
            return f1(right, sum(decided), sum(has))

        assert score(threshold) == max(score(row[label]) for row in table)
        assert len(str(threshold)) <= 6


def test_a_rare_label_has_no_threshold() -> None:
    table = [(0.9, 0.4, 0.1)] * 5 + [(0.1, 0.6, 0.1)] * 5
    truths = [frozenset({0, 1})] * 4 + [frozenset({1})] * 5 + [frozenset({0})]
    assert fit_thresholds(table, truths, 3).keys() == {0}


@pytest.mark.parametrize(
    ("columns", "threshold"),
    [
        ((0.9, 0.3), 0.6),
        ((0.5000001, 0.5), 0.50000005),
        ((1.0, 0.0), 0.5),
        ((0.3, 0.9), 0.15),  # a label that is stated upside down: everything is decided
        ((0.0, 1.0), 1.0),  # and none of whose probabilities can be found above 0
    ],
)
def test_a_threshold_has_few_digits(columns: tuple[float, float], threshold: float) -> None:
    """It lies between the lowest probability that is decided and the one below."""
    table = [(columns[0],)] * 5 + [(columns[1],)] * 5
    truths = [frozenset({0})] * 5 + [frozenset[int]()] * 5
    assert fit_thresholds(table, truths, 1) == {0: threshold}


def test_mean_f1_counts_the_labels_that_occur() -> None:
    table = [(0.9, 0.1, 0.1), (0.4, 0.8, 0.1)]
    truths = [frozenset({0}), frozenset({0})]
    assert mean_f1(table, truths, [{}, {}]) == pytest.approx((2 / 3 + 0) / 2)
    assert mean_f1(table, truths, [{}, {0: 0.4, 1: 0.9}]) == 1
    assert mean_f1([(0.1,)], [frozenset()], [{}]) == 0


def test_the_bins_of_a_calibrated_model_have_no_error() -> None:
    judged = [(0.75, True)] * 3 + [(0.75, False)] + [(1.0, True)] * 2
    bins = bins_of(judged)
    assert [one.size for one in bins] == [0] * 7 + [4, 0, 2]
    assert bins[7][3:] == (0.75, 0.75)
    assert calibration_error(bins) == 0
    assert calibration_error(bins_of([(0.9, False), (0.6, True)])) == pytest.approx(0.65)


def test_the_most_probable_label_is_judged_or_every_one() -> None:
    table, truths = [(0.2, 0.8), (0.6, 0.4)], [frozenset({1}), frozenset({1})]
    assert list(statements(table, truths, independent=False)) == [(0.8, True), (0.6, False)]
    assert len(list(statements(table, truths, independent=True))) == 4
    assert accuracy(table, truths) == 0.5


@given(st.lists(st.tuples(st.text(max_size=2), st.sets(st.integers(0, 2)))), st.integers(2, 5))
def test_equal_texts_share_a_fold(rows: list[tuple[str, set[int]]], folds: int) -> None:
    texts = [text for text, _ in rows]
    dealt = folds_of(texts, [truth for _, truth in rows], folds)
    assert len(set(zip(texts, dealt, strict=True))) == len(set(texts))
    sizes = Counter(dict(zip(texts, dealt, strict=True)).values())
    assert (
        max(sizes.values(), default=0) - min(sizes.values(), default=0) <= 1 or len(sizes) < folds
    )


def test_each_fold_has_its_part_of_each_label_in_any_order() -> None:
    texts = [f"text {number}" for number in range(50)]
    truths = [{number % 2} for number in range(50)]
    dealt = folds_of(texts, truths, 5)
    assert set(Counter(zip(dealt, map(min, truths), strict=True)).values()) == {5}
    turned = folds_of(texts[::-1], truths[::-1], 5)
    assert dealt == turned[::-1]


def test_calibration_lowers_the_error_of_texts_that_it_did_not_see() -> None:
    rows = exclusive_rows(2.5, 600)
    folds = [number % 5 for number in range(len(rows))]
    found = calibrate(rows, folds, softmax, independent=False)
    assert found.after.error < found.before.error / 2
    assert found.after.loss < found.before.loss
    assert found.after.hits == found.before.hits  # the most probable label stays
    assert found.thresholds == {}
    assert len(found.by_fold) == 5
    assert all(found.fit.temperature == pytest.approx(one, rel=0.15) for one in found.by_fold)


def test_a_fold_is_measured_with_the_others_fit() -> None:
    """The first fold wants a higher temperature than the second: each spoils the other."""
    cautious, bold = exclusive_rows(4.0, 100), exclusive_rows(0.5, 100)
    found = calibrate([*cautious, *bold], [0] * 100 + [1] * 100, softmax, independent=False)
    first, second = found.by_fold
    assert first < 1 < second
    assert found.after.loss > found.before.loss


def test_thresholds_raise_the_f1_of_texts_that_they_were_not_fitted_on() -> None:
    """A model that is too timid: its logits are shifted, which no temperature mends."""
    rows = [
        LabelledOutput(tuple(logit - 3 for logit in row.output), row.truth)
        for row in independent_rows(1.0, 500)
    ]
    folds = [number % 5 for number in range(len(rows))]
    found = calibrate(rows, folds, sigmoid, independent=True)
    assert found.thresholds.keys() == {0, 1, 2}
    assert found.after.hits > found.before.hits + 0.1
