"""The topics that may hold outcomes: those of the settings, and those of routes by label."""

from __future__ import annotations

from typing import Any

from worker.core.audited_topics import AuditedTopics, audited_topics
from worker.core.outcome_order import Outlet
from worker.settings import RouteSettings, WorkerTopics

ONE = WorkerTopics(("texts.in",), "texts.labelled", "texts.dead")
TWO = WorkerTopics(("a", "b"), "{topic}.labelled", "dead")


def found(
    topics: WorkerTopics, *routes: dict[str, Any], existing: tuple[str, ...] = (), **more: Any
) -> AuditedTopics:
    made = [RouteSettings.model_validate(route) for route in routes]
    return audited_topics(topics, made, existing=existing, **more)


def names(topics: AuditedTopics) -> list[tuple[str, str, list[str]]]:
    return [(*outlet, sorted(inputs)) for outlet, inputs in topics.feeds.items()]


def test_without_routes_there_are_results_and_dead_letters() -> None:
    """Each input may have results of its own."""
    assert names(found(ONE)) == [
        ("result", "texts.labelled", ["texts.in"]),
        ("dead_letter", "texts.dead", ["texts.in"]),
    ]
    assert names(found(TWO)) == [
        ("result", "a.labelled", ["a"]),
        ("result", "b.labelled", ["b"]),
        ("dead_letter", "dead", ["a", "b"]),
    ]


def test_routes_add_topics_of_results_and_of_copies() -> None:
    """A topic of both kinds is read for results, which includes copies; dead letters are last."""
    topics = found(
        ONE,
        {"label": "x", "topic": "texts.alerts", "also": True},
        {"label": "x", "topic": "texts.angry", "also": True},
        {"label": "x", "topic": "texts.angry"},
        {"label": "y", "drop": True},
        filtered="texts.filtered",
    )
    assert names(topics) == [
        ("result", "texts.labelled", ["texts.in"]),
        ("result", "texts.angry", ["texts.in"]),
        ("copy", "texts.alerts", ["texts.in"]),
        ("filtered", "texts.filtered", ["texts.in"]),
        ("dead_letter", "texts.dead", ["texts.in"]),
    ]
    assert topics.topics("result") == ["texts.labelled", "texts.angry"]
    assert topics.fitting == frozenset()


def test_a_topic_by_input_holds_outcomes_of_that_input_only() -> None:
    """Removed outcomes of one input leave no doubt about another."""
    topics = found(TWO, {"topic": "{topic}.angry", "label": "x"}, {"topic": "all", "also": True})
    assert list(topics.of("a")) == [
        Outlet("result", "a.labelled"),
        Outlet("copy", "a.labelled"),
        Outlet("result", "a.angry"),
        Outlet("copy", "a.angry"),
        Outlet("copy", "all"),
        Outlet("dead_letter", "dead"),
    ]


def test_topics_by_label_are_found_among_those_that_exist() -> None:
    """Inputs, dead letters and notes are none of them; the topic of results is read anyway."""
    existing = ("texts.in", "texts.dead", "texts.filtered", "texts.labelled", "texts.anger", "x.y")
    topics = found(ONE, {"topic": "texts.{label}"}, existing=existing, filtered="texts.filtered")
    assert topics.topics("result") == ["texts.labelled", "texts.anger"]
    assert topics.fitting == {"texts.anger"}


def test_the_dots_of_a_name_are_no_wildcards() -> None:
    assert found(ONE, {"topic": "a.{label}.b"}, existing=("aXjoyXb", "a.joy.b")).fitting == {
        "a.joy.b"
    }


def test_more_topics_are_read_as_named() -> None:
    """Every result there counts, also of a topic that fits a route."""
    topics = found(ONE, {"topic": "t.{label}"}, existing=("t.a", "t.b"), more=("t.a", "old"))
    assert topics.topics("result") == ["texts.labelled", "t.a", "t.b", "old"]
    assert topics.fitting == {"t.b"}
