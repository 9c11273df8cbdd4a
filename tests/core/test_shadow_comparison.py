"""Which records a shadow sees, and how two predictions of a text are compared."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.shadow import (
    OTHERS,
    Comparison,
    LabelPairing,
    TextComparison,
    divergence,
    exclusive_labels,
    is_chosen,
    wilson_interval,
)

RECORDS = [("in", partition, offset) for partition in range(3) for offset in range(2_000)]


def test_the_choice_is_the_one_that_the_docs_state() -> None:
    """So that a count made by other means takes the same records."""
    for topic, partition, offset in RECORDS[::50]:
        digest = hashlib.sha256(f"{topic}/{partition}/{offset}".encode()).hexdigest()
        expected = int(digest[:16], 16) / 2**64 < 0.1
        assert is_chosen(topic, partition, offset, 0.1) is expected


def test_the_share_is_about_what_was_asked_for_in_every_partition() -> None:
    for partition in range(3):
        chosen = sum(is_chosen("in", partition, offset, 0.1) for offset in range(2_000))
        assert abs(chosen - 200) < 4 * math.sqrt(2_000 * 0.1 * 0.9)


def test_a_smaller_share_is_a_part_of_a_larger_one() -> None:
    few = {record for record in RECORDS if is_chosen(*record, 0.05)}
    many = {record for record in RECORDS if is_chosen(*record, 0.2)}
    assert few < many


@pytest.mark.parametrize(("share", "chosen"), [(0.0, 0), (1.0, len(RECORDS))])
def test_the_bounds_of_the_share_choose_nothing_and_everything(share: float, chosen: int) -> None:
    assert sum(is_chosen(*record, share) for record in RECORDS) == chosen


# -- two predictions ---------------------------------------------------------------------------


def pairing(shadow_labels: tuple[str, ...], **names: str) -> LabelPairing:
    return LabelPairing(("NEG", "POS"), shadow_labels, names, exclusive=True)


def test_labels_are_paired_by_name_and_not_by_place() -> None:
    compared = pairing(("POS", "NEG")).compare((0.25, 0.75), (0.75, 0.25))
    assert compared == TextComparison("POS", "POS", 0.0)
    assert compared.agrees


def test_names_that_differ_in_case_alone_stand_for_each_other() -> None:
    pair = pairing(("neg", "pos"))
    assert not pair.unpaired
    assert pair.compare((0.9, 0.1), (0.2, 0.8))[:2] == ("NEG", "POS")


def test_a_given_name_stands_for_the_models_label() -> None:
    pair = pairing(("bad", "good"), bad="NEG", good="POS")
    assert pair.compare((0.9, 0.1), (0.9, 0.1)) == TextComparison("NEG", "NEG", 0.0)


def test_the_labels_of_a_decision_are_merged_before_they_are_compared() -> None:
    """The model's own label is the most probable one after the merge."""
    names = {"1 star": "NEG", "2 stars": "NEG", "5 stars": "POS"}
    merged = LabelPairing(("NEG", "POS"), tuple(names), names, exclusive=True, merged=True)
    assert merged.compare((0.6, 0.4), (0.3, 0.3, 0.4)).shadow_label == "NEG"
    toxic = {"toxic": "rude", "insult": "rude"}
    independent = LabelPairing(("rude",), tuple(toxic), toxic, exclusive=False, merged=True)
    assert independent.compare((0.75,), (0.5, 0.5)).divergence == pytest.approx(0)


def test_several_labels_may_stand_for_one() -> None:
    """Their probabilities are added; the most probable label is the shadow's own."""
    pair = pairing(
        ("1 star", "2 stars", "5 stars"), **{"1 star": "NEG", "2 stars": "NEG", "5 stars": "POS"}
    )
    assert pair.compare((0.6, 0.4), (0.3, 0.3, 0.4)) == TextComparison(
        "NEG", "POS", pytest.approx(0.0)
    )


def test_other_labels_are_compared_by_name_without_a_divergence() -> None:
    pair = pairing(("NEG", "neutral"))
    assert pair.unpaired == ["POS", "neutral"]
    assert pair.compare((0.9, 0.1), (0.9, 0.1)) == TextComparison("NEG", "NEG", None)
    assert pair.compare((0.9, 0.1), (0.1, 0.9)) == TextComparison("NEG", "neutral", None)


def test_labels_are_exclusive_if_both_models_say_so() -> None:
    assert exclusive_labels("softmax", "softmax")
    assert not exclusive_labels("softmax", "sigmoid")
    assert not exclusive_labels("none", "none")


# -- divergence --------------------------------------------------------------------------------


def test_the_divergence_is_that_of_the_textbook() -> None:
    """The entropy of the mean less the mean of the entropies, in bits."""
    assert divergence((1.0, 0.0), (0.0, 1.0)) == 1.0
    assert divergence((0.5, 0.5), (0.5, 0.5)) == 0.0
    # H(3/4, 1/4) - H(1/2, 1/2) / 2 = 0.8113 - 0.5
    assert divergence((1.0, 0.0), (0.5, 0.5)) == pytest.approx(0.311278, abs=1e-6)


def test_independent_labels_are_compared_one_by_one() -> None:
    assert divergence((0.9, 0.9), (0.9, 0.9), exclusive=False) == 0.0
    assert divergence((1.0, 0.5), (0.0, 0.5), exclusive=False) == 0.5


probabilities = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(
    lambda some: tuple(one / sum(some) for one in some)
)


@given(probabilities, probabilities)
def test_a_divergence_is_symmetric_and_between_0_and_1(
    p: tuple[float, ...], q: tuple[float, ...]
) -> None:
    assert 0.0 <= divergence(p, q) <= 1.0
    assert divergence(p, q) == pytest.approx(divergence(q, p), abs=1e-12)


# -- sums --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_flips_are_counted_by_pair_up_to_a_bound() -> None:
    comparison = Comparison((0.1, 0.5), pairs=2)
    noted = [
        comparison.note(TextComparison(label, shadow, drift))
        for label, shadow, drift in (
            ("a", "a", 0.0),
            ("a", "b", 0.1),
            ("a", "b", 0.2),
            ("b", "a", 0.9),
            ("a", "c", None),
        )
    ]
    assert noted == [None, ("a", "b"), ("a", "b"), ("b", "a"), (OTHERS, OTHERS)]
    assert (comparison.texts, comparison.agreed) == (5, 1)
    assert comparison.flips == {("a", "b"): 2, ("b", "a"): 1, (OTHERS, OTHERS): 1}
    assert comparison.divergences == [2, 1, 1]
    assert comparison.total_divergence == pytest.approx(1.2)
