"""Routes in the settings: what contradicts another setting, and the topics that they name."""

from __future__ import annotations

from typing import Any

import pytest

from worker.errors import SettingsError
from worker.settings import Settings, condition_paths, deciding_digest, inline, load

NAMED = inline({"a": {"name": "bundled"}, "b": {"name": "bundled"}})


def loaded(*routes: dict[str, Any], **more: str) -> Settings:
    flags = {name.replace("__", "."): value for name, value in more.items()}
    return load({"routes": inline(list(routes))} | flags, environ={}).settings


@pytest.mark.parametrize(
    ("routes", "more", "problem"),
    [
        ([{"drop": True}], {}, "route '1' drops records, which needs output.filtered_topic"),
        ([{"topic": "x", "name": "2"}, {"topic": "y"}], {}, "two routes have the name '2'"),
        (
            [{"path": "x", "in": 1, "topic": "t"}],
            {"input__format": "text"},
            'with input.format = "text" a record has no fields',
        ),
        ([{"model": "m", "label": "x", "topic": "t"}], {}, "and there is only [model]"),
        (
            [{"model": "m", "label": "x", "topic": "t"}],
            {"models": NAMED},
            "names the model 'm', and the models are a, b",
        ),
        (
            [{"label": "x", "topic": "t"}],
            {"models": NAMED},
            "must name the model that it looks at: model is one of a, b",
        ),
        ([{"model": "a", "topic": "t"}], {"models": NAMED}, "has no condition on it"),
        ([{"topic": "texts.in"}], {}, "which is an input too"),
        ([{"topic": "texts.dead"}], {}, "which is output.dead_letter_topic"),
        ([{"topic": "n"}], {"output__filtered_topic": "n"}, "which is output.filtered_topic"),
        ([{"topic": "__x"}], {}, "which is no name for a topic of results"),
        ([{"topic": "{topic}"}], {}, "which is an input too"),
        ([], {"output__filtered_topic": "texts.in"}, "are both 'texts.in'"),
        (
            [{"topic": "posts.angry"}],
            {"input__topic_pattern": "posts.*", "output__filtered_topic": "posts.none"},
            r"(?!posts\.none$|posts\.angry$)(?:posts.*)",
        ),
        ([{"topic": "s"}], {"shadow__topic": "s"}, "is a topic that the worker uses already"),
    ],
)
def test_a_contradiction_gets_a_sentence(
    routes: list[dict[str, Any]], more: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError) as error:
        loaded(*routes, **more)
    assert problem in str(error.value)


def test_a_route_behind_one_that_takes_all_is_doubtful() -> None:
    routes = [{"topic": "a", "also": True}, {"topic": "b"}, {"topic": "c", "label": "x"}]
    assert load({"routes": inline(routes)}, environ={}).warnings == (
        "no record reaches route '3': route '2' before it has no condition and takes them all",
    )


@pytest.mark.parametrize(
    ("routes", "copies"),
    [
        ([{"topic": "texts.labelled", "also": True, "label": "x"}], False),
        ([{"topic": "a", "also": True, "label": "x"}, {"topic": "a"}], False),
        ([{"topic": "a", "also": True, "label": "x"}, {"topic": "a", "label": "y"}], True),
        (
            [{"topic": "texts.labelled", "also": True}, {"drop": True, "label": "x"}],
            True,
        ),
        ([{"topic": "by.{label}", "also": True}, {"topic": "by.{label}"}], True),
    ],
)
def test_a_copy_to_the_topic_of_the_result_is_doubtful(
    routes: list[dict[str, Any]], copies: bool
) -> None:
    flags = {"routes": inline(routes), "output.filtered_topic": "notes"}
    warnings = load(flags, environ={}).warnings
    assert any("route '1' makes no copy: the result itself" in one for one in warnings) != copies


def test_each_topic_of_a_route_is_fed_from_the_inputs_that_it_is_for() -> None:
    routes = [
        {"topic": "{topic}.angry", "label": "x"},
        {"topic": "all", "also": True},
        {"topic": "texts.labelled", "label": "y"},
        {"topic": "by.{label}", "label": "z"},
        {"path": "spam", "exists": True, "drop": True},
    ]
    topics = loaded(*routes, input__topics="a,b", output__filtered_topic="notes").topics
    assert topics.results == ("texts.labelled",)
    assert topics.all_feeds == (
        ("texts.labelled", ("a", "b")),
        ("a.angry", ("a",)),
        ("b.angry", ("b",)),
        ("all", ("a", "b")),
        ("notes", ("a", "b")),
        ("texts.dead", ("a", "b")),
    )
    assert topics.all == ("a", "b", *topics.outputs)
    assert topics.required == ("a", "b", "texts.labelled", "texts.dead")


def test_the_digest_changes_with_what_decides_and_with_nothing_else() -> None:
    plain = loaded({"topic": "t"})
    assert len(deciding_digest(plain)) == 16
    assert deciding_digest(plain) == deciding_digest(loaded({"topic": "t"}, processes="2"))
    assert deciding_digest(plain) != deciding_digest(loaded({"topic": "u"}))
    windows = {"input.overflow": "windows"}
    decide: tuple[dict[str, Any], ...] = (
        windows,
        windows | {"input.stride": "7"},
        windows | {"input.max_windows": "3"},
        windows | {"input.combine": "max"},
        {"model.max_tokens": "64"},
        {"model.activation": "sigmoid"},
    )
    digests = {deciding_digest(load(flags, environ={}).settings) for flags in ({}, *decide)}
    assert len(digests) == 7


def test_the_fields_that_conditions_ask_for_are_known() -> None:
    when = {"path": "lang", "in": ["en"]}
    models = inline({"a": {"name": "bundled", "when": when}, "b": {"name": "bundled"}})
    routes = [{"path": path, "exists": True, "topic": "t"} for path in ("user", "user.id", "lang")]
    settings = loaded(*routes, {"topic": "u"}, models=models)
    assert condition_paths(settings) == ("user.id", "user", "lang")
