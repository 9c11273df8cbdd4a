"""Several models are loaded one after another, and those that stay the same are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import worker.inference.loading
from tests.support.panels import RuleModel, panel_settings, rule_card
from worker.core.model_set import ModelSet
from worker.core.records import ModelCard
from worker.errors import ModelUnchanged, SettingsError
from worker.inference.load_all import load_all
from worker.metrics import Metrics
from worker.settings import ModelSettings, Settings

TWO = '{tone = {name = "tone"}, topic = {name = "topic", when = {path = "x", exists = true}}}'


class Disk:
    """Loads models that are named after their folder.

    Attributes:
        loaded: names of the models that were loaded, and whether it was beside another one.
        weights: of a model that was trained again.
    """

    def __init__(self) -> None:
        self.loaded: list[tuple[str, bool]] = []
        self.weights: dict[str, str] = {}

    def load(
        self,
        settings: ModelSettings,
        _: int | None,
        *,
        in_use: int | None,
        unless: ModelCard | None,
        **__: Any,
    ) -> tuple[RuleModel, RuleModel]:
        if settings.name == "misfit":
            raise SettingsError("it does not fit")
        card = rule_card(settings.name, "A", "B")
        card = replace(card, weights_sha256=self.weights.get(settings.name, card.weights_sha256))
        if unless is not None and unless.weights_sha256 == card.weights_sha256:
            raise ModelUnchanged("the same")
        self.loaded.append((settings.name, in_use is not None))
        model = RuleModel(card, lambda _: "A")
        return model, model


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(worker.inference.loading, "load", disk.load)
    return disk


def load(settings: Settings, kept: ModelSet | None = None, metrics: Metrics | None = None) -> Any:
    beside = kept is not None
    _, classifier = load_all(
        settings, metrics or Metrics(), beside=beside, replaces=beside, unless=kept
    )
    return classifier


def test_each_model_is_loaded_beside_those_before_it_and_warm(disk: Disk) -> None:
    metrics = Metrics()
    both = load(panel_settings(TWO), metrics=metrics)
    assert disk.loaded == [("tone", False), ("topic", True)]
    assert all(member.classifier.warm for member in both.members)
    shown = {
        (sample.name, sample.labels.get("name"), sample.labels.get("model"))
        for family in metrics.registry.collect()
        for sample in family.samples
    }
    assert ("streamlabel_model_info", None, "tone+topic") in shown
    assert ("streamlabel_each_model_info", "topic", "topic") in shown


def test_models_that_are_all_the_same_are_not_changed(disk: Disk) -> None:
    before = load(panel_settings(TWO))
    with pytest.raises(ModelUnchanged, match=r"tone\+topic are in use already"):
        load(panel_settings(TWO), before)
    assert len(disk.loaded) == 2


def test_a_model_that_stays_is_kept_and_the_others_are_loaded(disk: Disk) -> None:
    before = load(panel_settings(TWO))
    changed = panel_settings('{tone = {name = "tone"}, topic = {name = "other"}}')
    after = load(changed, before)
    assert disk.loaded[2:] == [("other", True)]
    assert after.members[0].classifier is before.members[0].classifier
    assert after.card.identity != before.card.identity


def test_the_order_of_the_models_changes_no_id(disk: Disk) -> None:
    before = load(panel_settings(TWO))
    turned = load(
        panel_settings(
            '{topic = {name = "topic", when = {path = "x", exists = true}}, tone = {name = "tone"}}'
        )
    )
    assert turned.members[0].name == "topic"
    assert turned.card.name == before.card.name == "tone+topic"
    assert turned.card.identity == before.card.identity


def test_weights_that_changed_on_disk_are_loaded_again(disk: Disk) -> None:
    before = load(panel_settings(TWO))
    disk.weights["topic"] = "cd" * 32
    after = load(panel_settings(TWO), before)
    assert disk.loaded[2:] == [("topic", True)]
    assert after.members[0].classifier is before.members[0].classifier


def test_other_uses_of_the_same_models_are_a_change_without_a_load(disk: Disk) -> None:
    before = load(panel_settings(TWO))
    after = load(panel_settings('{tone = {name = "tone"}, topic = {name = "topic"}}'), before)
    assert len(disk.loaded) == 2
    assert after.members[1].plan.when is None


def test_a_model_that_does_not_fit_is_named(disk: Disk) -> None:
    with pytest.raises(SettingsError, match=r"models\.topic: it does not fit"):
        load(panel_settings('{tone = {name = "tone"}, topic = {name = "misfit"}}'))
    assert disk.loaded == [("tone", False)]


def test_a_load_that_finds_nothing_to_keep_passes_its_error_on(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ModelUnchanged("never asked for")

    monkeypatch.setattr(worker.inference.loading, "load", refuse)
    with pytest.raises(ModelUnchanged, match="never asked for"):
        load(panel_settings(TWO))
    assert disk.loaded == []
