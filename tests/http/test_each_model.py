"""A page of several models shows what each of them did; a page of one model shows nothing of it."""

from __future__ import annotations

import pytest

from tests.http.test_snapshot import Watched
from worker.http.each_model import LABELS


@pytest.fixture
def watched() -> Watched:
    return Watched()


def count(watched: Watched, metric: str, *labels: str, by: float = 1) -> None:
    getattr(watched.metrics, f"model_{metric}").labels(*labels).inc(by)


def test_one_model_has_no_members(watched: Watched) -> None:
    snapshot = watched.after(1)
    assert (snapshot["each_model"], snapshot["routes"]) == ([], None)


def test_each_model_is_shown_by_its_name(watched: Watched) -> None:
    facts = {"model": "bundled", "engine": "packed"}
    watched.metrics.show_each_model({"mood": facts, "topic": {"model": "other"}})
    for metric, *labels, by in (
        ("records", "mood", "labelled", 5),
        ("records", "topic", "labelled", 2),
        ("records", "topic", "not_applicable", 3),
        ("records", "topic", "failed", 0),
        ("labels", "mood", "POSITIVE", 4),
        ("labels", "mood", "NEGATIVE", 1),
        ("seconds", "mood", "infer", 3),
        ("seconds", "topic", "tokenise", 1),
    ):
        count(watched, metric, *labels, by=by)
    mood, topic = watched.after(4)["each_model"]
    assert (mood["name"], mood["facts"], mood["labelled"]) == ("mood", facts, 5)
    assert mood["labels"] == {"POSITIVE": 4, "NEGATIVE": 1}
    assert (mood["time"], mood["busy"]) == (0.75, {"tokenise": 0, "infer": 0.75})
    assert (topic["labelled"], topic["absent"], topic["time"]) == (2, {"not_applicable": 3}, 0.25)


def test_the_labels_of_a_model_are_bounded(watched: Watched) -> None:
    watched.metrics.show_each_model({"many": {}})
    for number in range(LABELS + 5):
        count(watched, "labels", "many", f"label {number:02}", by=number + 1)
    (many,) = watched.after(1)["each_model"]
    assert len(many["labels"]) == LABELS
    assert many["others"] == {"labels": 5, "total": 1 + 2 + 3 + 4 + 5}
    assert many["time"] is None


def test_routes_are_shown_once_there_is_something_to_see(watched: Watched) -> None:
    watched.metrics.routed.labels("angry").inc(3)
    watched.metrics.routed.labels("(none)").inc(5)
    watched.metrics.copies.labels("toxic").inc(2)
    watched.metrics.copies_lost.labels("toxic").inc()
    watched.metrics.filtered.labels("route", "spam").inc(4)
    watched.metrics.filtered.labels("prepare.function", "").inc()
    watched.metrics.path_missing.labels("lang").inc(7)
    assert watched.after(1)["routes"] == {
        "main": {"angry": 3, "(none)": 5},
        "copies": {"toxic": 2},
        "filtered": {"route spam": 4, "prepare.function": 1},
        "lost": 1,
        "path_missing": 7,
    }
