"""Decisions in the metrics, on the page, and at a change of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.clocks import HandClock
from tests.support.records import CARD, item
from tests.support.workers import ObedientModel
from worker.core.decisions.rules import bind, decidable_labels, decision, result_labels
from worker.core.offsets import OffsetTracker
from worker.core.records import Classified, Encoded, ModelCard, Prediction, RecordRef
from worker.errors import SettingsError
from worker.http.ask import AskQueue
from worker.http.recent_posts import RecentPosts
from worker.metrics import Metrics
from worker.runtime.formats import require_form
from worker.runtime.outcome_counts import count_outcomes
from worker.settings import DecisionSettings, Settings, load


def card(**options: Any) -> ModelCard:
    rule = decision(DecisionSettings(**options))
    assert rule is not None
    return replace(CARD, decision=bind(rule, CARD.labels, CARD.activation))


def settings(**members: Any) -> Settings:
    return load({name.replace("__", "."): m for name, m in members.items()}, environ={}).settings


def test_decided_labels_and_uncertain_results_are_counted() -> None:
    metrics = Metrics()
    model = card(threshold=0.4)
    metrics.create_label_series(result_labels(model), decidable_labels(model))
    one = Encoded(RecordRef("in", 0, 0, 1), "out", None, b"", [], 0, label="POSITIVE")
    decided = replace(one, decided=("NEGATIVE", "POSITIVE"))
    unsure = replace(one, label="UNCERTAIN", uncertain=True)
    count_outcomes(metrics, [one, decided, unsure], 0, OffsetTracker())
    value = metrics.registry.get_sample_value
    assert value("streamlabel_decided_labels_total", {"label": "NEGATIVE"}) == 1
    assert value("streamlabel_uncertain_total") == 1
    assert value("streamlabel_labels_total", {"label": "UNCERTAIN"}) == 1


def test_the_labels_of_results_are_known_before_the_first_one() -> None:
    assert result_labels(CARD) == CARD.labels
    assert decidable_labels(CARD) == decidable_labels(card(digits=2)) == ()
    assert result_labels(card(min_score=0.9)) == (*CARD.labels, "UNCERTAIN")
    assert decidable_labels(card(threshold=0.9)) == CARD.labels


def test_the_page_shows_the_decision() -> None:
    posts = RecentPosts(texts=False, clock=HandClock())
    prediction = Prediction((0.25, 0.75), 3, truncated=False)
    for model in (CARD, card(min_score=0.8), card(threshold=0.2)):
        posts.note([Classified(item(), prediction, model)])
    listed, unsure, plain = posts.latest()
    assert "label" not in plain
    assert (unsure["label"], "decided" in unsure) == ("UNCERTAIN", False)
    assert listed["decided"] == ["NEGATIVE", "POSITIVE"]


def test_an_answer_has_the_decision() -> None:
    ask_queue, model = AskQueue(HandClock()), ObedientModel(card=card(threshold=0.5))
    answer = ask_queue.ask("hello")
    ask_queue.tokenise(model.aside)
    ask_queue.infer()
    said = answer.result(0).said
    assert (said["label"], said["decided"]) == ("POSITIVE", ["POSITIVE"])


def test_a_change_keeps_the_schema_of_results() -> None:
    """It is registered at a start; JSON has none."""
    decided = {"decision__threshold": 0.5}
    require_form(settings(), settings(**decided))
    avro = {"output__format": "avro", "registry__url": "http://localhost:1"}
    require_form(settings(**avro, **decided), settings(**avro, decision__digits=2))
    with pytest.raises(SettingsError, match="would have another schema"):
        require_form(settings(**avro), settings(**avro, **decided))
