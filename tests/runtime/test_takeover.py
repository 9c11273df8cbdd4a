"""ModelTaker: a model that does not fit the worker changes nothing; one that fits is shown."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.panels import RuleModel, panel_settings, rule_card, set_members
from tests.support.records import CARD
from tests.support.workers import ObedientModel
from worker.core.model_set import ModelSet
from worker.core.topics import TopicInfo
from worker.errors import SettingsError, TopicMissing
from worker.metrics import Metrics, ShadowState
from worker.runtime.shadow import Shadow
from worker.runtime.takeover import ModelTaker
from worker.settings import Settings, deciding_digest, load


class Bench:
    """A worker of which the parts that know the model are fakes."""

    def __init__(self, **flags: Any) -> None:
        self.settings = load(flags, environ={}).settings
        self.used: list[Settings] = []
        self.followed: list[Any] = []
        self.labellers: list[Any] = []
        self.error: Exception | None = None
        self.drift: Any = SimpleNamespace(follow=self.followed.append)
        self.shadow: Shadow | None = None
        self.most_bytes = 1_000_000
        self.metrics = Metrics()

    def use(self, settings: Settings) -> None:
        if self.error:
            raise self.error
        self.used.append(settings)

    def take(self, model: ObedientModel | ModelSet, settings: Settings | None = None) -> None:
        infos = {n: TopicInfo(1, 1, self.most_bytes) for n in self.settings.topics.all}
        parts: Any = (
            SimpleNamespace(metrics=self.metrics, clock=HandClock()),
            infos,
            SimpleNamespace(use=self.use),
            SimpleNamespace(drift=self.drift),
            SimpleNamespace(use=self.labellers.append),
        )
        ModelTaker(self.settings, *parts, self.shadow)(settings or self.settings, model, model)


def test_a_model_that_fits_labels_from_now_on() -> None:
    bench = Bench(routes='[{topic = "t.{label}"}]')
    card = replace(CARD, labels=("good", "so so"))
    with capture_logs() as lines:
        bench.take(ObedientModel(card=card))
    assert bench.used[0].topics.all_results == ("texts.labelled", "t.good", "t.so_so")
    assert "route '1' sends the label 'so so'" in lines[0]["event"]
    assert bench.followed == [card]
    assert bench.followed[0] is bench.labellers[0].card
    shown = bench.metrics.registry.get_sample_value("streamlabel_labels_total", {"label": "so so"})
    assert shown == 0


def test_a_model_whose_topics_are_missing_changes_nothing() -> None:
    bench = Bench()
    bench.error = TopicMissing("t.good is missing")
    with pytest.raises(SettingsError, match="the topics of its labels are not ready"):
        bench.take(ObedientModel())
    assert (bench.labellers, bench.followed) == ([], [])


@pytest.mark.parametrize("models", [1, 2])
def test_outcomes_carry_the_digest_of_the_settings_of_their_model(models: int) -> None:
    """A note of a record in flight at a takeover tells the settings that filtered the record."""
    bench = Bench(**{"output.filtered_topic": "notes", "prepare.function": "textwrap:dedent"})
    if models == 1:
        bench.take(ObedientModel())
    else:
        toml = '{a = {name = "x"}, b = {name = "y"}}'
        bench.settings = panel_settings(toml, **{"output.filtered_topic": "notes"})
        rules = {name: RuleModel(rule_card(name, "A", "B"), lambda _: "A") for name in "ab"}
        bench.take(ModelSet(set_members(bench.settings, **rules)))
    card = bench.labellers[0].card
    assert card.settings_digest == deciding_digest(bench.settings)
    assert bench.followed[0] is card


def test_a_result_that_may_be_too_large_is_told_and_no_drift_is_followed_without_it() -> None:
    bench = Bench()
    bench.drift, bench.most_bytes = None, 800
    with capture_logs() as lines:
        bench.take(ObedientModel())
    assert "max.message.bytes" in lines[0]["event"]
    assert len(bench.labellers) == 1


def with_condition(path: str, **flags: Any) -> dict[str, Any]:
    models = (
        f'{{a = {{name = "x"}}, b = {{name = "y", when = {{path = "{path}", exists = true}}}}}}'
    )
    return {"models": models, **flags}


AVRO = {"input.format": "avro", "registry.url": "http://registry"}


def test_a_new_field_of_a_condition_needs_a_restart_if_the_decoder_reads_only_some() -> None:
    """Without the field, the model would apply to no record, and nothing would tell."""
    bench = Bench(**with_condition("kind", **AVRO))
    after = load(with_condition("lang", **AVRO), environ={}).settings
    with pytest.raises(SettingsError, match=r"ask for the field 'lang', .*: restart the worker"):
        bench.take(ObedientModel(), after)
    assert (bench.labellers, bench.used) == ([], [])


@pytest.mark.parametrize("flags", [{}, AVRO])
def test_a_field_that_the_decoder_reads_needs_no_restart(flags: dict[str, Any]) -> None:
    bench = Bench(**with_condition("kind", **flags))
    path = "kind" if flags else "lang"  # JSON has each field of a record
    bench.take(ObedientModel(), load(with_condition(path, **flags), environ={}).settings)
    assert len(bench.labellers) == 1


@pytest.mark.parametrize("changed", [True, False])
def test_a_shadow_whose_texts_are_prepared_otherwise_is_given_up(changed: bool) -> None:
    """It has the preparation of the start, and would be compared on other texts."""
    bench = Bench(**{"shadow.name": "second"})
    bench.shadow = Shadow(bench.settings.shadow, bench.metrics, HandClock())
    after = load({"shadow.name": "second", "prepare.html": changed}, environ={}).settings
    bench.take(ObedientModel(), after)
    bench.shadow.use(SimpleNamespace())  # type: ignore[arg-type]  # loaded only now
    shown = bench.metrics.registry.get_sample_value("streamlabel_shadow_state")
    assert shown == (ShadowState.FAILED if changed else ShadowState.COMPARING)
