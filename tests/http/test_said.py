"""The answer that models give to a text: one or several, with decisions or without."""

from __future__ import annotations

from dataclasses import replace

from tests.support.records import CARD, item
from worker.core.absences import Absence, Part
from worker.core.decisions.rules import Decision, bind
from worker.core.decisions.windows import WindowPlan
from worker.core.records import Classified, ModelCard, Prediction
from worker.http.said import answered, shown

PREDICTION = Prediction((0.4, 0.6), 3, truncated=False)


def with_decision(**options: object) -> ModelCard:
    decision = Decision(**options)  # type: ignore[arg-type]
    return replace(CARD, decision=bind(decision, CARD.labels, "softmax"))


def test_one_model_says_what_it_always_said() -> None:
    first, second = CARD.labels
    outcome = Classified(item(), PREDICTION, CARD)
    scores = [(second, 0.6), (first, 0.4)]
    assert shown(outcome) == {"scores": scores}
    assert answered(outcome) == {
        "label": second,
        "scores": scores,
        "token_count": 3,
        "truncated": False,
    }


def test_an_uncertain_label_stands_for_the_most_probable_one() -> None:
    said = answered(Classified(item(), PREDICTION, with_decision(min_score=0.9)))
    assert said["label"] == "UNCERTAIN"
    assert said["scores"][0][1] == 0.6
    assert "decided" not in said


def test_decided_labels_are_listed_also_if_there_are_none() -> None:
    card = with_decision(thresholds=dict.fromkeys(CARD.labels, 0.9))
    assert shown(Classified(item(), PREDICTION, card))["decided"] == []


def test_windows_are_told_if_long_texts_are_read_in_them() -> None:
    card = replace(CARD, windows=WindowPlan(1, 9, "mean"), recipe="html")
    prediction = replace(PREDICTION, windows=3, total_tokens=900)
    said = answered(Classified(item(), prediction, card))
    assert (said["windows"], said["total_tokens"]) == (3, 900)
    assert said["prepared"] == "html"


def test_several_models_speak_by_their_names() -> None:
    parts = {"mood": Absence("not_applicable"), "topic": Part(PREDICTION, CARD)}
    outcome = Classified(item(), Prediction((), 0, truncated=False), CARD, parts)
    told = shown(outcome)
    assert told["parts"][0] == {"name": "mood", "absent": "not_applicable"}
    assert told["parts"][1]["name"] == "topic"
    assert told["scores"] == told["parts"][1]["scores"]
    said = answered(outcome)
    assert said["classifications"]["mood"] is None
    assert said["absences"] == {"mood": "not_applicable"}
    assert said["classifications"]["topic"]["label"] == CARD.labels[1]


def test_a_record_that_no_model_applies_to_has_no_scores() -> None:
    outcome = Classified(item(), PREDICTION, CARD, {"mood": Absence("not_applicable")})
    assert shown(outcome)["scores"] == []
