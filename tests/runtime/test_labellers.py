"""Panel: several models label a record, and it gets one outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from schemas import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.panels import RuleModel, panel_settings, rule_card, set_members
from tests.support.records import invalid, item
from worker.core.absences import NOT_APPLICABLE, SKIPPED, Absence, Part
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.decisions.rules import bind, decision
from worker.core.faults import CircuitBreaker
from worker.core.model_set import ModelSet, SetMember
from worker.core.records import (
    Classified,
    DeadLettered,
    Filtered,
    InvalidRecord,
    MicroBatch,
    Outcome,
    WorkItem,
)
from worker.errors import SettingsError
from worker.metrics import Metrics
from worker.runtime.labellers import Panel
from worker.runtime.labelling import Labeller
from worker.runtime.tokenised_batch import TokenisedBatch
from worker.settings import DecisionSettings

LANGUAGE_FIRST = """{
    en = {name = "x", when = {model = "language", label = ["en"]}},
    de = {name = "x", when = {model = "language", label = "de"}},
    language = {name = "x"}
}"""


def language(text: str) -> str:
    return text[:2]


def models(**more: Callable[[str], str]) -> dict[str, RuleModel]:
    rules = {
        "language": RuleModel(rule_card("language", "en", "de", "fr"), language),
        "en": RuleModel(rule_card("en", "BAD", "GOOD"), lambda _: "GOOD"),
        "de": RuleModel(rule_card("de", "SCHLECHT", "GUT"), lambda _: "GUT"),
    }
    for name, rule in more.items():
        card = rules[name].card if name in rules else rule_card(name, "NO", "YES")
        rules[name] = RuleModel(card, rule)
    return rules


def panel(toml: str, built: dict[str, RuleModel], limit: int = 100) -> Panel:
    def build(member: SetMember) -> Labeller:
        return Labeller(
            member.tokeniser,
            member.classifier,
            refuse_long=False,
            breaker=CircuitBreaker(limit, ratio=1.0),
            budget=ForwardBudget(4096),
            metrics=Metrics(),
            cache=PredictionCache(100_000),
        )

    settings = panel_settings(toml)
    members = set_members(settings, **built)
    return Panel(ModelSet(members), build, Metrics(), HandClock())


def label(judges: Panel, *entries: WorkItem | InvalidRecord) -> list[Outcome]:
    tokenised = judges.tokenise(MicroBatch(entries, "ready", 0.0, 0.0), lambda: None)
    assert len(tokenised) == len(entries)
    return tokenised.infer(lambda: None)


def with_fields(offset: int, text: str, **fields: Any) -> WorkItem:
    return replace(item(offset, text), payload={"text": text, **fields})


def said(outcome: Outcome) -> dict[str, str]:
    """Return the label of each model, or its reason in brackets."""
    assert isinstance(outcome, Classified)
    assert outcome.parts is not None
    return {name: one(part) for name, part in outcome.parts.items()}


def one(part: Part | Absence) -> str:
    if isinstance(part, Absence):
        return f"({part.reason})"
    scores = part.prediction.probabilities
    return part.card.labels[scores.index(max(scores))]


def broken(_: str) -> str:
    raise ValueError("about a secret text")


@pytest.mark.parametrize("label", ["eng", "UNCERTAIN"])
def test_a_condition_on_a_label_that_the_other_model_lacks_is_refused(label: str) -> None:
    """A model that waits for it would never apply, and nothing would tell."""
    toml = LANGUAGE_FIRST.replace('"de"', f'["de", "{label}"]')
    with pytest.raises(
        SettingsError,
        match=f"models.de.when has label = '{label}', which is no label of models.language: "
        "its labels are en, de, fr",
    ):
        panel(toml, models())


def test_a_condition_may_ask_for_the_uncertain_label() -> None:
    found = decision(DecisionSettings(min_score=0.5))
    assert found is not None
    built = models()
    card = built["language"].card
    bound = bind(found, card.labels, card.activation)
    built["language"].card = replace(card, decision=bound)
    panel(LANGUAGE_FIRST.replace('"de"', '"UNCERTAIN"'), built)


def test_a_model_of_a_language_gets_the_texts_of_that_language_alone() -> None:
    built = models()
    outcomes = label(
        panel(LANGUAGE_FIRST, built), item(0, "en a"), invalid(1), item(2, "de b"), item(3, "fr c")
    )
    assert [isinstance(one, Classified) for one in outcomes] == [True, False, True, True]
    none = f"({NOT_APPLICABLE})"
    assert said(outcomes[0]) == {"en": "GOOD", "de": none, "language": "en"}
    assert said(outcomes[2]) == {"en": none, "de": "GUT", "language": "de"}
    assert said(outcomes[3]) == {"en": none, "de": none, "language": "fr"}
    assert built["en"].labelled == ["en a"]
    assert built["de"].labelled == ["de b"]


def test_the_prediction_of_a_result_is_that_of_the_first_model() -> None:
    judges = panel(LANGUAGE_FIRST, models())
    first, absent = label(judges, item(0, "en a"), item(1, "fr b"))
    assert isinstance(first, Classified)
    assert isinstance(absent, Classified)
    assert first.prediction.probabilities == (pytest.approx(0.1), 0.9)
    assert absent.prediction.probabilities == ()
    assert first.model is absent.model is judges.card
    assert (judges.card.name, judges.card.revision) == ("de+en+language", "set")
    assert judges.card.labels == ("BAD", "GOOD")


def test_a_condition_on_a_field_is_decided_before_the_text_is_tokenised() -> None:
    built = models(toxic=lambda _: "YES")
    toml = '{toxic = {name = "x", when = {path = "lang", in = ["en"]}}, language = {name = "x"}}'
    outcomes = label(
        panel(toml, built),
        with_fields(0, "en a", lang="en"),
        with_fields(1, "de b", lang="de"),
        item(2, "en c"),
    )
    assert [said(one)["toxic"] for one in outcomes] == ["YES", *[f"({NOT_APPLICABLE})"] * 2]
    assert built["toxic"].tokenised == ["en a"]


def test_a_record_without_the_field_of_a_condition_is_counted() -> None:
    toml = '{language = {name = "x", when = {path = "lang", in = "en"}}}'
    judges = panel(toml, models())
    label(judges, item(0, "en a"), with_fields(1, "en a", lang="en"))
    found = judges._metrics.registry.get_sample_value(
        "streamlabel_path_missing_total", {"path": "lang"}
    )
    assert found == 1


def test_a_repeat_is_labelled_although_the_first_record_of_its_text_is_not_asked() -> None:
    """The text is the same, and the first record lacks the label that the second one has."""
    toml = """{
        language = {name = "x", when = {path = "lang", not_in = ["de"]}},
        en = {name = "x", when = {model = "language", label = "en"}}
    }"""
    first, second = label(
        panel(toml, models()),
        with_fields(0, "en a", lang="de"),
        with_fields(1, "en a", lang="xx"),
    )
    assert said(first) == {"language": f"({NOT_APPLICABLE})", "en": f"({NOT_APPLICABLE})"}
    assert said(second) == {"language": "en", "en": "GOOD"}


def test_a_record_on_which_a_required_model_fails_is_a_dead_letter() -> None:
    built = models(toxic=lambda text: broken(text) if "bad" in text else "YES")
    toml = '{toxic = {name = "x"}, language = {name = "x"}}'
    failed, fine = label(panel(toml, built), item(0, "en bad"), item(1, "en good"))
    assert isinstance(failed, DeadLettered)
    assert failed.reason is DeadLetterReason.MODEL_FAILED
    assert failed.model is not None
    assert failed.model.name == "toxic"
    assert "secret" not in failed.message
    assert said(fine) == {"toxic": "YES", "language": "en"}
    assert built["language"].labelled == ["en good"]  # not on what is lost already


def test_a_model_that_is_not_required_leaves_null_and_its_reason() -> None:
    built = models(toxic=broken)
    toml = '{toxic = {name = "x", required = false}, language = {name = "x"}}'
    (outcome,) = label(panel(toml, built), item(0, "en a"))
    assert said(outcome) == {"toxic": "(model_failed)", "language": "en"}


def test_a_condition_on_the_label_of_a_model_that_failed_does_not_hold() -> None:
    built = models(language=broken)
    toml = """{
        language = {name = "x", required = false},
        en = {name = "x", when = {model = "language", label = "en"}}
    }"""
    (outcome,) = label(panel(toml, built), item(0, "en a"))
    assert said(outcome) == {"language": "(model_failed)", "en": f"({NOT_APPLICABLE})"}


class Skipping(Labeller):
    """Filters the texts that contain `skip`, as a preparation may."""

    def infer(self, batch: TokenisedBatch, step: Callable[[], None]) -> list[Outcome]:
        return [
            Filtered(one.item, "prepare.function")
            if isinstance(one, Classified) and "skip" in one.item.text
            else one
            for one in super().infer(batch, step)
        ]


def test_a_record_that_every_model_skips_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.runtime.test_labellers.Labeller", Skipping)
    judges = panel(LANGUAGE_FIRST, models())
    skipped, _ = label(judges, item(0, "en skip"), item(1, "en a"))
    assert isinstance(skipped, Filtered)
    assert skipped.reason == "prepare.function"
    assert skipped.model is judges.card


def test_a_model_that_skips_a_text_is_absent_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    built = models()
    toml = '{en = {name = "x"}, language = {name = "x"}}'
    plain = Labeller

    def chosen(tokeniser: RuleModel, *args: Any, **more: Any) -> Labeller:
        kind = Skipping if tokeniser is built["en"] else plain
        return kind(tokeniser, *args, **more)

    monkeypatch.setattr("tests.runtime.test_labellers.Labeller", chosen)
    (outcome,) = label(panel(toml, built), item(0, "en skip"))
    assert said(outcome) == {"en": f"({SKIPPED})", "language": "en"}


def test_a_text_beside_the_records_is_labelled_by_the_same_models() -> None:
    judges = panel(LANGUAGE_FIRST, models())
    (outcome,) = label(judges.aside(), item(0, "en a"))
    assert said(outcome)["en"] == "GOOD"
    assert judges._labellers["en"].cache_bytes == 0


def test_each_model_has_a_cache_of_its_own() -> None:
    built = models()
    judges = panel(LANGUAGE_FIRST, built)
    label(judges, item(0, "en a"))
    (again,) = label(judges, item(1, "en a"))
    assert said(again)["en"] == "GOOD"
    assert built["language"].labelled == built["en"].labelled == ["en a"]


def test_a_set_labels_and_warms_up_as_its_members_do() -> None:
    built = models()
    both = ModelSet(set_members(panel_settings(LANGUAGE_FIRST), **built))
    both.warm_up()
    assert all(one.warm for one in built.values())
    (cut,) = both.tokenise(["en a"])
    assert both.predict(cut) == both.begin(cut)() == built["en"].predict(cut)


def test_the_identity_of_a_set_changes_with_what_decides_its_results() -> None:
    tables = (
        '{a = {name = "x"}, b = {name = "y"}}',
        '{a = {name = "x"}, b = {name = "y", required = false}}',
        '{a = {name = "x"}, b = {name = "y", when = {path = "lang", in = ["en"]}}}',
        '{a = {name = "x"}, b = {name = "y", when = {path = "lang", in = ["de"]}}}',
        '{a = {name = "x"}, b = {name = "y", when = {model = "a", label = "YES"}}}',
    )
    built = models(a=language, b=language)
    cards = [ModelSet(set_members(panel_settings(table), **built)).card for table in tables]
    assert len({card.identity for card in cards}) == 5


def test_a_text_beside_the_records_leaves_no_trace() -> None:
    """It meets the conditions of a record, and no cache, circuit breaker or counter."""
    built = models()
    judges = panel(LANGUAGE_FIRST, built, limit=1)
    beside = judges.aside()
    for _ in range(2):
        (outcome,) = label(beside, item(0, "en a"))
        assert said(outcome)["en"] == "GOOD"
    assert built["en"].labelled == ["en a"] * 2
    failing = panel(LANGUAGE_FIRST, models(en=broken), limit=1).aside()
    for _ in range(3):
        (outcome,) = label(failing, item(0, "en a"))
        assert isinstance(outcome, DeadLettered)
