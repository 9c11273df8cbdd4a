"""The labels of a worker's models, read without their weights, name the topics of its routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.models import make_checkpoint
from worker.cli.named_topics import with_every_topic
from worker.errors import SettingsError
from worker.inference.label_cards import label_cards
from worker.settings import Settings, inline, load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("m") / "tiny", labels=("1 star", "2 stars", "good")
    )


def loaded(model: Path, **flags: str) -> Settings:
    return load({"model.name": str(model)} | flags, environ={}).settings


def test_topics_without_a_label_need_no_model() -> None:
    settings = load({"routes": '[{topic = "t"}]', "model.name": "/none"}, environ={}).settings
    assert with_every_topic(settings) is settings


def test_each_label_names_a_topic(model: Path) -> None:
    settings = loaded(model, routes='[{topic = "by.{label}"}]')
    named = with_every_topic(settings).topics.all_results
    assert named == ("texts.labelled", "by.1_star", "by.2_stars", "by.good")


def test_the_labels_are_those_of_the_decision(model: Path) -> None:
    merged = "1 star=bad,2 stars=bad"
    flags = {"routes": '[{topic = "by.{label}"}]', "decision.labels": merged}
    settings = loaded(model, **flags, **{"decision.min_score": "0.6"})
    named = with_every_topic(settings).topics.all_results
    assert named == ("texts.labelled", "by.bad", "by.good", "by.UNCERTAIN")


def test_each_of_several_models_has_its_labels(model: Path) -> None:
    models = inline({"a": {"name": str(model)}, "b": {"name": "bundled"}})
    routes = inline([{"model": "b", "topic": "b.{label}", "label": "NEGATIVE"}])
    settings = load({"models": models, "routes": routes}, environ={}).settings
    assert label_cards(settings)["a"].labels == ("1 star", "2 stars", "good")
    assert with_every_topic(settings).topics.all_results == ("texts.labelled", "b.NEGATIVE")
    wrong = inline([{"model": "a", "topic": "a.{label}", "label": "NEGATIVE"}])
    with pytest.raises(SettingsError, match="which is no label of"):
        with_every_topic(load({"models": models, "routes": wrong}, environ={}).settings)
