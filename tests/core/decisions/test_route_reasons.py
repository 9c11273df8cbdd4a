"""The words of a route's conditions: the facts that decided, for people who test their routes."""

from __future__ import annotations

from typing import Any

import pytest

from worker.core.decisions.route_reasons import Reason, conditions, reasons
from worker.core.decisions.routes import Facts
from worker.core.decisions.rules import Verdict
from worker.settings import RouteSettings

ANGRY = Verdict("anger", 0.8, 0.5, ("anger", "disgust"))


def route(**members: Any) -> RouteSettings:
    return RouteSettings.model_validate({"topic": "t"} | members)


def facts(payload: dict[str, Any] | None = None, verdict: Verdict | None = ANGRY) -> Facts:
    return Facts("in", payload, lambda _: verdict)


@pytest.mark.parametrize(
    ("members", "holds", "words"),
    [
        ({"label": "anger"}, True, "label is anger"),
        ({"label": ["joy", "love"]}, False, "label is anger, not joy or love"),
        ({"decided": ["disgust", "joy"]}, True, "decided is disgust"),
        ({"decided": ["joy", "love"]}, False, "decided is none of joy or love"),
        ({"min_score": 0.8}, True, "score 0.8 is at least 0.8"),
        ({"min_score": 0.9}, False, "score 0.8 is below 0.9"),
        ({"max_score": 0.9}, True, "score 0.8 is below 0.9"),
        ({"max_score": 0.8}, False, "score 0.8 is not below 0.8"),
        ({"min_margin": 0.6}, False, "margin 0.5 is below 0.6"),
        ({"max_margin": 0.6, "model": "mood"}, True, "mood: margin 0.5 is below 0.6"),
        ({"path": "lang", "in": ["en", "de"]}, True, "lang is 'en'"),
        ({"path": "lang", "in": ["de"]}, False, "lang is 'en'"),
        (
            {"path": "long", "matches": "a+"},
            False,
            "long has 1,001 characters, and matches reads 1,000",
        ),
        ({"path": "author.name", "exists": True}, False, "the record has no field author.name"),
        ({"path": "author.name", "exists": False}, True, "the record has no field author.name"),
    ],
)
def test_each_condition_is_told_with_its_fact(
    members: dict[str, Any], holds: bool, words: str
) -> None:
    """As it holds or not."""
    assert reasons(route(**members), facts({"lang": "en", "long": "a" * 1001})) == [
        Reason(holds, words)
    ]


def test_all_conditions_of_a_route_are_told() -> None:
    """A route without a condition has no reason."""
    both = route(label="anger", min_score=0.9, path="lang", exists=True)
    assert [one.holds for one in reasons(both, facts())] == [True, False, False]
    assert reasons(route(), facts()) == []


@pytest.mark.parametrize(
    ("model", "words"), [(None, "model gave no label"), ("mood", "model mood gave no label")]
)
def test_a_model_that_did_not_apply_gave_no_label(model: str | None, words: str) -> None:
    """Nothing more is told of it."""
    without = facts(verdict=None)
    assert reasons(route(label="anger", min_score=0.5, model=model), without) == [
        Reason(False, words)
    ]


def test_a_long_value_is_cut() -> None:
    found = reasons(route(path="text", exists=True), facts({"text": "x" * 900}))
    assert len(found[0].words) < 60


def test_conditions_are_told_as_the_settings_have_them() -> None:
    """For the list of routes."""
    full = route(
        model="mood",
        label=["anger", "joy"],
        decided="love",
        min_score=0.5,
        max_score=0.9,
        min_margin=0.1,
        max_margin=0.7,
        path="lang",
        **{"in": ["en"], "not_in": ["de", 7], "matches": "e.", "exists": True},
    )
    assert conditions(full) == [
        "mood: label anger or joy",
        "mood: decided love",
        "mood: score at least 0.5",
        "mood: score below 0.9",
        "mood: margin at least 0.1",
        "mood: margin below 0.7",
        "lang is en",
        "lang is not de or 7",
        "lang matches e.",
        "lang exists",
    ]
    assert conditions(route(path="lang", exists=False)) == ["lang is missing"]
    assert conditions(route(path="lang", **{"in": ["en"]})) == ["lang is en"]
