"""Decisions on probabilities: temperature, merged labels, thresholds, uncertainty, form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import CARD
from worker.core.decisions.members import listed
from worker.core.decisions.rules import (
    BoundDecision,
    bind,
    decision,
    unnamed_hint,
    verdict,
)
from worker.core.decisions.temperature import softened
from worker.core.records import Activation
from worker.errors import SettingsError
from worker.settings import DecisionSettings, load

STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
MERGED = {
    "1 star": "NEGATIVE",
    "2 stars": "NEGATIVE",
    "4 stars": "POSITIVE",
    "5 stars": "POSITIVE",
}
P = (0.1, 0.2, 0.3, 0.25, 0.15)


def bound(
    known: tuple[str, ...] = STARS, activation: Activation = "softmax", **options: Any
) -> BoundDecision:
    found = decision(DecisionSettings(**options))
    assert found is not None
    return bind(found, known, activation)


def refusal(
    known: tuple[str, ...] = STARS, activation: Activation = "softmax", **options: Any
) -> str:
    with pytest.raises(SettingsError) as error:
        bound(known, activation, **options)
    return str(error.value)


def test_without_options_there_is_no_decision() -> None:
    assert decision(DecisionSettings()) is None


def test_merged_labels_have_the_sum_of_their_probabilities() -> None:
    stars = bound(labels=MERGED)
    assert stars.labels == ("NEGATIVE", "3 stars", "POSITIVE")
    assert stars.probabilities(P) == pytest.approx((0.3, 0.3, 0.4))
    assert stars.probabilities((0.6000001, 0.4000001, 0, 0, 0))[0] == 1


def test_a_merged_label_of_independent_ones_applies_if_one_of_them_does() -> None:
    toxic = bound(
        ("toxic", "insult", "threat"), "sigmoid", labels={"insult": "rude", "toxic": "rude"}
    )
    assert toxic.probabilities((0.5, 0.8, 0.1)) == pytest.approx((0.9, 0.1))


def test_labels_can_be_renamed_and_swapped() -> None:
    assert bound(("A", "B"), labels={"A": "B", "B": "A"}).labels == ("B", "A")
    assert bound(("A", "B"), "none", labels={"A": "x"}).probabilities((0.4, 0.9)) == (0.4, 0.9)


def test_a_temperature_equals_that_of_the_outputs() -> None:
    outputs = (2.0, -1.0, 0.5)

    def softmax(t: float) -> list[float]:
        raised = [math.exp(z / t) for z in outputs]
        return [one / sum(raised) for one in raised]

    def sigmoid(t: float) -> list[float]:
        return [1 / (1 + math.exp(-z / t)) for z in outputs]

    for t in (0.05, 0.7, 1.0, 3.0, 20.0):
        assert softened(softmax(1), t, exclusive=True) == pytest.approx(softmax(t))
        assert softened(sigmoid(1), t, exclusive=False) == pytest.approx(sigmoid(t))


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30).filter(lambda p: max(p) > 0),
    st.floats(0.05, 20),
    st.booleans(),
)
def test_a_temperature_gives_probabilities_and_keeps_the_best_label(
    p: list[float], temperature: float, exclusive: bool
) -> None:
    found = softened(p, temperature, exclusive=exclusive)
    assert all(0 <= one <= 1 for one in found)
    assert found[p.index(max(p))] == max(found)


def test_a_temperature_comes_before_the_merge() -> None:
    cooled = bound(labels=MERGED, temperature=2.0)
    expected = [one**0.5 / sum(p**0.5 for p in P) for one in P]
    assert cooled.probabilities(P)[0] == pytest.approx(expected[0] + expected[1])
    assert cooled.temperature == 2.0


def test_thresholds_decide_labels() -> None:
    assert bound(threshold=0.2).decide(P).decided == ("2 stars", "3 stars", "4 stars")
    some = bound(("joy", "anger", "fear"), "sigmoid", threshold={"joy": 0.9, "fear": 0.01})
    assert some.decide((0.8, 0.5, 0.02)).decided == ("anger", "fear")
    assert some.decide((0.8, 0.4, 0.0)).decided == ()
    assert bound(digits=2).decide(P).decided == ()


def test_a_label_that_is_not_sure_is_uncertain_and_its_score_stays() -> None:
    assert bound(min_score=0.3).decide(P).label == "3 stars"
    unsure = bound(min_score=0.31).decide(P)
    assert (unsure.label, unsure.score) == ("UNCERTAIN", 0.3)
    assert unsure.margin == pytest.approx(0.05)
    assert bound(min_margin=0.06, uncertain_label="?").decide(P).label == "?"
    assert bound(min_margin=0.04).decide(P).label == "3 stars"
    assert bound(("A",), "sigmoid", min_score=0.2).decide((0.4,)).margin == 0.4


def test_a_result_shows_the_most_probable_labels_rounded() -> None:
    assert bound(top_k=2, digits=1).shown((0.11, 0.19, 0.3, 0.25, 0.15)) == [
        ("3 stars", 0.3),
        ("4 stars", 0.2),
    ]
    assert bound(top_k=1).shown(P) == [("3 stars", 0.3)]
    assert bound(threshold=0.5).shown(P) == list(zip(STARS, P, strict=True))


def test_the_verdict_of_a_model_follows_its_decision() -> None:
    assert verdict(CARD, (0.25, 0.75)) == ("POSITIVE", 0.75, 0.5, ())
    unsure = replace(CARD, decision=bound(CARD.labels, min_score=0.8))
    assert verdict(unsure, (0.25, 0.75)).label == "UNCERTAIN"


def test_the_digest_knows_all_that_changes_a_result() -> None:
    options: list[dict[str, Any]] = [
        {"labels": MERGED},
        {"labels": {"1 star": "bad"}},
        {"temperature": 2.0},
        {"threshold": 0.2},
        {"threshold": {"1 star": 0.2}},
        {"min_score": 0.3},
        {"min_margin": 0.3},
        {"min_margin": 0.3, "uncertain_label": "?"},
        {"top_k": 2},
        {"digits": 2},
    ]
    digests = [bound(**one).digest for one in options]
    assert len(set(digests)) == len(options)
    assert digests == [bound(**one).digest for one in options]
    identities = {replace(CARD, decision=bound(**one)).identity for one in options}
    assert len(identities | {CARD.identity, replace(CARD, recipe="nfc").identity}) == 12
    assert CARD.identity == CARD.weights_sha256


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("names 'angry', which is no label of the model", {"labels": {"angry": "x"}}),
        ("which is another label of the model: add", {"labels": {"1 star": "2 stars"}}),
        ("merges all labels", {"labels": dict.fromkeys(STARS, "star")}),
        ("threshold names 'angry'", {"threshold": {"angry": 0.5}}),
        ("renames it to 'bad'", {"labels": {"1 star": "bad"}, "threshold": {"1 star": 0.5}}),
        ("is a label of the model too", {"min_score": 0.5, "uncertain_label": "3 stars"}),
        ("top_k = 6 is more than the 5 labels", {"top_k": 6}),
        ("min_score = 0.2 has no effect", {"min_score": 0.2}),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(
    message: str, options: dict[str, Any]
) -> None:
    assert message in refusal(**options)


def test_options_that_do_not_fit_the_activation_are_refused() -> None:
    assert "are independent" in refusal(activation="sigmoid", min_margin=0.2)
    assert "probabilities already" in refusal(activation="none", temperature=2.0)
    assert "whether they exclude each other" in refusal(activation="none", labels=MERGED)


def test_a_message_names_at_most_thirty_labels() -> None:
    assert listed([str(n) for n in range(40)]).endswith("29 and 10 more")


def test_labels_without_a_name_have_a_hint() -> None:
    (hint,) = unnamed_hint(("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"))
    assert "LABEL_0, LABEL_1, LABEL_2 ..." in hint
    assert unnamed_hint(("LABEL_0", "joy")) == ()
    assert unnamed_hint(()) == ()


def settings(**options: Any) -> DecisionSettings:
    flags = {f"decision.{name}": value for name, value in options.items()}
    return load(flags, environ={}).settings.decision


def test_options_have_forms_in_flags_and_files() -> None:
    assert settings(threshold="0.4").threshold == 0.4
    assert settings(threshold="joy=0.4, fear=.1").threshold == {"joy": 0.4, "fear": 0.1}
    assert settings(threshold={"joy": 1}).threshold == {"joy": 1.0}
    assert settings(labels="a=b,c=b").labels == {"a": "b", "c": "b"}
    assert settings(threshold='{"so so" = 0.4}').threshold == {"so so": 0.4}
    assert settings(labels=' {"a,b" = "c=d"}').labels == {"a,b": "c=d"}
    assert hash(settings(threshold={"joy": 1})) == hash(settings(threshold="joy=1"))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("must be a number above 0, at most 1", {"threshold": "high"}),
        ("must be a number above 0, at most 1", {"threshold": 1.5}),
        ("must be a number above 0, at most 1", {"threshold": True}),
        ("joy = 2 must be a number above 0", {"threshold": {"joy": 2}}),
        ("joy = None must be a number", {"threshold": {"joy": None}}),
        ("comma-separated", {"threshold": "joy=0.4,fear"}),
        ("must not be empty: name a label", {"threshold": {}}),
        ("must not be empty: name a label", {"threshold": "{}"}),
        ("has 'A' twice: keep one of them", {"labels": "A=x,A=y"}),
        ("has 'A' twice: keep one of them", {"threshold": "A=0.1,A=0.2"}),
        ("must be a TOML value", {"labels": "{A=x}"}),
        ("must be a table of strings", {"labels": "{A=1}"}),
        ("must have at most 200 characters", {"uncertain_label": "U" * 201, "min_score": 0.5}),
        ("no effect without", {"uncertain_label": "?"}),
        ("an empty name", {"labels": {"a": " "}}),
        ("from 0.05 to 20", {"temperature": 0}),
        ("at least 1", {"top_k": 0}),
        ("from 1 to 15", {"digits": 16}),
    ],
)
def test_values_that_can_not_be_meant_are_refused(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**options)
