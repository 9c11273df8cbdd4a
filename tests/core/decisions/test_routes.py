"""Routes: the first that matches decides, copies are beside it, and topics are legal names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.records import CARD, raw
from worker.core.absences import Absence, Part
from worker.core.decisions.routes import Routed, Router, facts_of
from worker.core.decisions.rules import bind, decision
from worker.core.model_set import ModelSet, SetMember
from worker.core.records import Classified, ModelCard, Prediction, WorkItem
from worker.core.route_headers import CopyNote
from worker.core.route_topics import (
    MOST_TOPICS,
    cards_of,
    depends_on_labels,
    named_topic,
    spelling_notes,
    topic_part,
    with_label_topics,
)
from worker.errors import SettingsError
from worker.settings import DecisionSettings, Settings, inline, load, plans

DECISION = DecisionSettings(threshold=0.5, min_score=0.6)


def settings_of(*routes: dict[str, Any], **more: Any) -> Settings:
    flags = {"routes": inline(list(routes)), "output.filtered_topic": "notes"} | more
    return load(flags, environ={}).settings


def classified(
    *p: float, card: ModelCard = CARD, parts: dict[str, Any] | None = None, **payload: Any
) -> Classified:
    return Classified(
        WorkItem(raw(1), "hi", payload=payload or None),
        Prediction(p, 3, truncated=False),
        card,
        parts,
    )


def routed(outcome: Classified, *routes: dict[str, Any], **more: Any) -> Routed:
    settings = settings_of(*routes, **more)
    return Router(settings.routes, settings.output.topic).route(facts_of(outcome))


def decided_card() -> ModelCard:
    found = decision(DECISION)
    assert found is not None
    return replace(CARD, decision=bind(found, CARD.labels, "softmax"))


NEGATIVE = classified(0.9, 0.1, lang="en")


def test_the_first_route_that_matches_decides() -> None:
    angry, rest = {"label": "NEGATIVE", "topic": "angry"}, {"topic": "rest"}
    assert routed(NEGATIVE, angry, rest) == Routed("angry", (), "1")
    assert routed(NEGATIVE, rest, angry) == Routed("rest", (), "1")
    assert routed(classified(0.1, 0.9), angry) == Routed()


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ({"min_score": 0.9}, True),
        ({"min_score": 0.91}, False),
        ({"max_score": 0.9}, False),
        ({"max_score": 0.91}, True),
        ({"min_margin": 0.8}, True),
        ({"min_margin": 0.85}, False),
        ({"max_margin": 0.85}, True),
        ({"decided": ["NEGATIVE", "x"]}, True),
        ({"decided": ["POSITIVE"]}, False),
        ({"path": "lang", "in": ["en"]}, True),
        ({"path": "lang", "not_in": ["en"]}, False),
        ({"path": "lang", "in": ["en"], "label": "POSITIVE"}, False),
        ({"path": "missing", "exists": False}, True),
    ],
)
def test_a_route_matches_if_every_condition_holds(condition: dict[str, Any], matches: bool) -> None:
    outcome = replace(NEGATIVE, model=decided_card())
    assert (routed(outcome, condition | {"topic": "t"}).topic == "t") is matches


def test_a_copy_goes_beside_the_topic_that_a_later_route_decides() -> None:
    copies = [{"topic": f"copy.{n}", "also": True, "name": f"c{n}"} for n in (1, 2)]
    found = routed(NEGATIVE, *copies, {"topic": "main", "name": "m"})
    notes = (CopyNote("c1", "copy.1"), CopyNote("c2", "copy.2"))
    assert found == Routed("main", notes, "m")
    assert routed(NEGATIVE, *copies).copies == notes


def test_a_topic_gets_one_copy_and_none_beside_the_result_itself() -> None:
    twice = [{"topic": "copy", "also": True}, {"topic": "copy", "also": True}]
    assert routed(NEGATIVE, *twice).copies == (CopyNote("1", "copy"),)
    assert routed(NEGATIVE, *twice, {"topic": "copy"}).copies == ()
    assert routed(NEGATIVE, {"topic": "texts.labelled", "also": True}).copies == ()
    dropped = routed(NEGATIVE, *twice, {"drop": True})
    assert dropped == Routed(None, (CopyNote("1", "copy"),), "3", dropped=True)


def test_a_missing_field_is_counted_once_for_each_condition() -> None:
    missing: list[str] = []
    settings = settings_of({"path": "x.y", "in": [1], "topic": "t"})
    router = Router(settings.routes, "out", missing.append)
    assert router.route(facts_of(NEGATIVE)) == Routed()
    assert missing == ["x.y"]


def test_a_route_looks_at_the_model_that_it_names() -> None:
    toxic = replace(CARD, name="toxicity", labels=("no", "yes"))
    part = Part(Prediction((0.2, 0.8), 3, truncated=False), toxic)
    outcome = classified(0.9, 0.1, parts={"language": Absence("failed"), "toxicity": part})
    named = {n: {"name": n} for n in ("language", "toxicity")}
    routes = [
        {"model": "language", "label": "NEGATIVE", "topic": "never"},
        {"model": "toxicity", "label": "yes", "topic": "toxic.{label}"},
    ]
    found = routed(outcome, *routes, models=inline(named))
    assert found == Routed("toxic.yes", (), "2")


def test_a_label_is_spelt_with_the_characters_that_kafka_allows() -> None:
    assert topic_part("très fâché/2") == "tr_s_f_ch__2"
    assert topic_part("") == "_"
    assert named_topic("a.{label}.{topic}", "x y") == "a.x_y.{topic}"
    card = replace(CARD, labels=("1 star", "1/star", "ok", "so so"))
    routes = [{"topic": "stars.{label}", "name": "s"}, {"topic": "all", "also": True}]
    settings = settings_of(*routes)
    assert list(spelling_notes(settings, {None: card})) == [
        "route 's' sends the labels '1 star', '1/star' to one topic, 'stars.1_star'",
        (
            "route 's' sends the label 'so so' to the topic 'stars.so_so': Kafka allows letters, "
            "digits, dots, underscores and hyphens"
        ),
    ]
    assert routed(classified(0.1, 0.2, 0.3, 0.4, card=card), *routes).topic == "stars.so_so"


def test_the_topics_of_labels_are_those_that_a_record_may_have() -> None:
    settings = settings_of(
        {"label": "NEGATIVE", "topic": "only.{label}"}, {"topic": "{topic}.{label}"}
    )
    assert settings.topics.all_results == ("texts.labelled",)
    named = with_label_topics(settings, {None: decided_card()}).topics.all_results
    labels = ("NEGATIVE", "POSITIVE", "UNCERTAIN")
    assert named == (
        "texts.labelled",
        "only.NEGATIVE",
        *(f"texts.in.{label}" for label in labels),
    )


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ({"label": "ANGRY", "topic": "t"}, "which is no label of tiny: its labels are 'NEGATIVE'"),
        ({"decided": "NEGATIVE", "topic": "t"}, "set decision.threshold"),
        ({"topic": "texts.{label}"}, "which is output.dead_letter_topic"),
    ],
)
def test_a_route_that_does_not_fit_the_model_is_refused(
    route: dict[str, Any], problem: str
) -> None:
    card = replace(CARD, labels=("NEGATIVE", "dead"))
    with pytest.raises(SettingsError) as error:
        with_label_topics(settings_of(route), {None: card})
    assert problem in str(error.value)


def test_a_shadow_may_not_write_to_the_topic_of_a_label() -> None:
    more = {"shadow.name": "second", "shadow.topic": "t.POSITIVE"}
    settings = settings_of({"topic": "t.{label}"}, **more)
    with pytest.raises(
        SettingsError, match=r"shadow.topic = 't.POSITIVE' is a topic that the worker"
    ):
        with_label_topics(settings, {None: CARD})


def test_a_route_of_too_many_labels_is_refused() -> None:
    card = replace(CARD, labels=tuple(f"l{n}" for n in range(MOST_TOPICS + 1)))
    with pytest.raises(SettingsError, match="would need 201 topics, one for each label"):
        with_label_topics(settings_of({"topic": "t.{label}"}), {None: card})
    many = settings_of({"label": ["no"], "topic": "t"})
    with pytest.raises(SettingsError, match="and 191 more"):
        with_label_topics(many, {None: card})


def test_a_set_of_models_has_the_cards_of_all() -> None:
    named = inline({n: {"name": n} for n in ("a", "b")})
    settings = settings_of({"model": "b", "label": "NEGATIVE", "topic": "t"}, models=named)

    class One:
        card = CARD

    members = [SetMember(plan, One(), One()) for plan in plans(settings)]  # type: ignore[arg-type]
    cards = cards_of(ModelSet(members))
    assert cards == {"a": CARD, "b": CARD}
    assert with_label_topics(settings, cards).topics.all_results == ("texts.labelled", "t")
    with pytest.raises(SettingsError, match="names the model 'b', and the models are a"):
        with_label_topics(settings, {"a": CARD})
    with pytest.raises(SettingsError, match=r"names the model 'b', and there is only \[model\]"):
        with_label_topics(settings, {None: CARD})


def test_a_route_without_a_model_means_the_only_one() -> None:
    """A change of models may bring a second one."""
    settings = settings_of({"label": "NEGATIVE", "topic": "t"})
    with pytest.raises(SettingsError, match="must name the model that it looks at: model is one"):
        with_label_topics(settings, {"a": CARD, "b": CARD})
    part = Part(Prediction((0.9, 0.1), 3, truncated=False), CARD)
    outcome = classified(0.1, 0.9, parts={"a": part})
    assert routed(outcome, {"label": "NEGATIVE", "topic": "t"}).topic == "t"
    assert depends_on_labels(settings_of({"topic": "a.{label}"}))
    assert not depends_on_labels(settings)
