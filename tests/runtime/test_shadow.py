"""Shadow: a second model sees a share of the texts, costs at most its time, and breaks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.records import CARD, raw
from tests.support.workers import ObedientModel
from worker.core.budget import ForwardBudget
from worker.core.faults import CircuitBreaker
from worker.core.records import Classified, ModelCard, ModelInput, Outcome, Prediction, WorkItem
from worker.core.shadow import is_chosen
from worker.http.reading import Reading
from worker.metrics import Metrics, ShadowState
from worker.runtime import shadow as module
from worker.runtime.labelling import Labeller
from worker.runtime.shadow import Shadow
from worker.settings import ShadowSettings

SECOND = replace(CARD, name="second", weights_sha256="cd" * 32)


class SecondModel(ObedientModel):
    """Labels texts with a `+` as POSITIVE; each pass takes `seconds` of the clock a text."""

    def __init__(self, clock: HandClock, seconds: float = 0.0, card: ModelCard = SECOND) -> None:
        super().__init__(card=card)
        self._clock, self._seconds = clock, seconds

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        texts = ["".join(map(chr, ids)) for ids in model_input.ids]
        self.predicted.append(texts)
        self._clock.now += self._seconds * len(texts)
        self.on_predict(texts)
        scores = [(0.25, 0.75) if "+" in text else (0.75, 0.25) for text in texts]
        return [Prediction(pair, 3, truncated=False) for pair in scores]


class Bench:
    """A shadow with a scripted second model, and the first model's outcomes."""

    def __init__(self, *, seconds: float = 0.0, card: ModelCard = SECOND, **settings: Any) -> None:
        self.clock, self.metrics = HandClock(), Metrics()
        self.model = SecondModel(self.clock, seconds, card)
        named = ShadowSettings(name="second", **({"share": 1.0} | settings))
        self.shadow = Shadow(named, self.metrics, self.clock)
        self.published: list[Classified] = []

    def ready(self, limit: int = 100) -> Bench:
        labeller = Labeller(
            self.model,
            self.model,
            refuse_long=False,
            breaker=CircuitBreaker(limit, ratio=1.0),
            budget=ForwardBudget(10_000),
            metrics=Metrics(),
        )
        self.shadow.use(labeller, self.published.extend)
        return self

    def label(
        self, *texts: str, seconds: float = 1.0, first: int = 0, card: ModelCard = CARD
    ) -> None:
        """Let the first model label a micro-batch in some seconds: always POSITIVE."""
        self.clock.now += seconds
        self.shadow.note(outcomes(texts, first, card), seconds)
        self.shadow.between()

    @property
    def reading(self) -> Reading:
        return Reading(self.metrics.registry.collect())

    @property
    def skipped(self) -> dict[str, float]:
        numbers = self.reading.by("shadow_skipped_total", "reason")
        return {reason: number for reason, number in numbers.items() if number}

    @property
    def texts(self) -> float:
        return self.reading.total("shadow_texts_total")


def outcomes(texts: Sequence[str], first: int = 0, card: ModelCard = CARD) -> list[Outcome]:
    return [
        Classified(
            WorkItem(raw(first + number, headers=(("h", b"1"),)), text, payload={"text": text}),
            Prediction((0.25, 0.75), 3, truncated=False),
            card,
        )
        for number, text in enumerate(texts)
    ]


def fail(_: list[str]) -> None:
    raise ValueError("about a secret text")


def test_agreement_flips_and_divergence_are_counted() -> None:
    bench = Bench().ready()
    with capture_logs() as logs:
        bench.label("a+", "b+", "c-")
    assert logs[0]["event"] == "comparing with a shadow"
    reading = bench.reading
    assert (bench.texts, reading.total("shadow_agreed_total")) == (3, 2)
    ((flip, number),) = reading.series("shadow_flips_total")
    assert (flip["from"], flip["to"], number) == ("POSITIVE", "NEGATIVE", 1)
    assert reading.total("shadow_divergence_count") == 3
    assert reading.facts("shadow_model_info")["shadow"] == "second"
    assert not bench.skipped


def test_the_texts_are_those_that_the_hash_chooses() -> None:
    bench = Bench(share=0.25).ready()
    bench.label(*(f"{n}+" for n in range(100)))
    chosen = {f"{n}+" for n in range(100) if is_chosen("in", 0, n, 0.25)}
    assert {text for texts in bench.model.predicted for text in texts} == chosen
    assert bench.texts == len(chosen)


def test_a_share_of_nothing_is_no_shadow() -> None:
    assert not ShadowSettings(name="second", share=0).is_on
    assert not ShadowSettings(share=1).is_on
    assert ShadowSettings(name="second").is_on


def test_dead_letters_are_not_compared() -> None:
    bench = Bench().ready()
    bench.label()
    assert not bench.texts


def test_nothing_of_a_record_waits_but_its_text_and_its_place() -> None:
    """A micro-batch may be published and committed while its texts wait."""
    bench = Bench(max_cost=0.01).ready()
    bench.label("a+")
    bench.shadow.note(outcomes(["b+"], 1), 0.0)
    (waiting,) = bench.shadow._waiting
    record = waiting.item.record
    assert (record.value, record.headers, waiting.item.payload) == (None, (), None)
    assert record.ref.offset == 1


def test_texts_before_the_model_is_loaded_are_skipped_and_counted() -> None:
    bench = Bench()
    assert bench.reading.total("shadow_state") == ShadowState.LOADING
    bench.label("a+", "b+")
    assert bench.skipped == {"loading": 2}
    bench.ready().label("c+")
    assert (bench.texts, bench.skipped) == (1, {"loading": 2})
    assert bench.reading.total("shadow_state") == ShadowState.COMPARING


# -- its time ----------------------------------------------------------------------------------


def test_a_backlog_gets_slower_by_at_most_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second model ten times as slow gets the time of `max_cost`; it skips the other texts."""
    monkeypatch.setattr(module, "_TEXTS", 64)
    bench = Bench(share=1.0, max_cost=0.2, seconds=0.1).ready()
    began = bench.clock.now
    for turn in range(50):  # 64 texts a micro-batch: one second of the first, 6.4 of the second
        bench.label(*(f"{n}+" for n in range(64)), first=64 * turn)
    of_the_shadow = bench.clock.now - began - 50
    assert of_the_shadow <= 0.2 * 50 + 64 * 0.1
    assert bench.skipped.keys() == {"behind"}
    waiting = len(bench.shadow._waiting)
    assert bench.texts + bench.skipped["behind"] + waiting == 50 * 64


def test_an_equal_model_sees_every_chosen_text_by_default() -> None:
    bench = Bench(share=0.1, seconds=0.01).ready()
    for turn in range(100):  # 100 texts a micro-batch, 0.01 s each
        bench.label(*(f"{n}+" for n in range(100)), first=100 * turn)
    bench.label(seconds=0)
    chosen = sum(is_chosen("in", 0, n, 0.1) for n in range(10_000))
    assert (bench.texts, bench.skipped) == (chosen, {})


def test_idle_time_is_free() -> None:
    bench = Bench(share=1.0, max_cost=0.01, seconds=1.0).ready()
    bench.label("a+", "b+", "c+", seconds=0.1)
    bench.label("d+", first=3, seconds=0.1)
    assert bench.texts == 3
    for _ in range(4):  # as an idle infer stage does
        bench.clock.now += 1.0
        bench.shadow.between()
    assert (bench.texts, bench.skipped) == (4, {})


def test_a_micro_batch_waits_for_a_second_and_one_group_at_most() -> None:
    """However long the worker was idle: docs/shadow.md names this bound."""
    bench = Bench(share=1.0, max_cost=100, seconds=0.01).ready()
    bench.clock.now += 3600
    bench.shadow.between()
    bench.shadow.note(outcomes([f"{n}+" for n in range(1000)]), 0.0)
    began = bench.clock.now
    bench.shadow.between()
    group = 64 * 0.01
    assert 1.0 < bench.clock.now - began <= 1.0 + group
    assert len(bench.shadow._waiting) == 1000 - 2 * 64


def test_a_group_is_about_one_forward_pass() -> None:
    """A micro-batch that arrives waits for one group, not for all texts."""
    bench = Bench(max_cost=100).ready()
    bench.label(*(f"{n}+" for n in range(100)))
    assert [len(texts) for texts in bench.model.predicted] == [64, 36]
    bench.label("x" * 20_000, "y" * 20_000, first=100)
    assert [len(texts) for texts in bench.model.predicted[2:]] == [1, 1]


def test_the_characters_that_wait_are_bounded() -> None:
    bench = Bench().ready()
    bench.shadow.note(outcomes(["x" * 900_000, "y" * 900_000, "z"]), 1.0)
    assert bench.skipped == {"behind": 1}
    bench.clock.now += 1
    bench.shadow.between()
    bench.label("x" * 2_000_000, first=3)
    assert bench.texts == 3, "a text of any size has room if nothing waits"


# -- its failures ------------------------------------------------------------------------------


def test_a_text_on_which_the_second_model_fails_is_counted_and_the_others_go_on() -> None:
    bench = Bench().ready()
    bench.model.on_predict = lambda texts: fail(texts) if "bad" in texts else None
    bench.label("a+", "bad", "c+")
    assert (bench.texts, bench.skipped) == (2, {"failed": 1})
    assert bench.reading.total("shadow_state") == ShadowState.COMPARING
    assert [one.item.text for one in bench.published] == ["a+", "c+"]


def test_a_second_model_that_fails_on_every_text_is_off_and_nothing_is_raised() -> None:
    bench = Bench().ready(limit=3)
    bench.model.on_predict = fail
    with capture_logs() as logs:
        bench.label("a", "b", "c", "d")
    (entry,) = logs
    assert entry["event"] == "the shadow is off, the worker goes on without it"
    assert "secret" not in str(logs)
    assert (bench.texts, bench.skipped) == (0, {"failed": 4})
    assert bench.reading.total("shadow_state") == ShadowState.FAILED
    bench.label("e", first=4)
    assert bench.skipped == {"failed": 5}


def test_texts_that_wait_when_it_goes_off_are_counted() -> None:
    bench = Bench(max_cost=0.01).ready()
    bench.shadow.note(outcomes(["a+", "b+"]), 1.0)
    bench.shadow.give_up("no more")
    bench.clock.now += 1
    bench.shadow.between()
    assert bench.skipped == {"failed": 2}


@pytest.mark.parametrize("fault", [MemoryError(), KeyError("secret")])
def test_an_error_of_any_kind_turns_it_off_and_does_not_end_the_stage(fault: Exception) -> None:
    bench = Bench().ready()

    def raise_it(_: Sequence[Classified]) -> None:
        raise fault

    bench.shadow.use(bench.shadow._labeller, raise_it)  # type: ignore[arg-type]
    with capture_logs() as logs:
        bench.label("a+")
    assert logs[-1]["reason"] == type(fault).__name__
    assert bench.skipped == {"failed": 1}


def test_an_error_while_texts_are_chosen_does_not_end_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(*_: object) -> bool:
        raise MemoryError

    bench = Bench().ready()
    monkeypatch.setattr(module, "is_chosen", no_memory)
    bench.label("a+")
    assert bench.reading.total("shadow_state") == ShadowState.FAILED


# -- models that change ------------------------------------------------------------------------


def test_a_change_of_the_first_model_begins_another_comparison() -> None:
    bench = Bench().ready()
    bench.label("a+", "b-")
    new = replace(CARD, name="new", weights_sha256="ef" * 32)
    bench.label("c+", first=2, card=new)
    reading = bench.reading
    assert (bench.texts, reading.total("shadow_flips_total")) == (1, 0)
    assert reading.by("shadow_texts_total", "comparison") == {f"{'ef' * 6}/{'cd' * 6}": 1}
    assert reading.facts("shadow_model_info")["model"] == "new"


def test_texts_of_both_models_in_one_group_are_counted_apart() -> None:
    bench = Bench().ready()
    new = replace(CARD, weights_sha256="ef" * 32)
    bench.shadow.note(outcomes(["a+", "b+"]), 1.0)
    bench.clock.now += 1
    bench.label("c+", first=2, card=new)
    assert bench.texts == 1
    assert sorted(map(len, bench.model.predicted)) == [3]


def test_other_labels_are_said_and_have_no_divergence() -> None:
    card = replace(SECOND, labels=("NEGATIVE", "good"))
    bench = Bench(card=card).ready()
    with capture_logs() as logs:
        bench.label("a+", "b-")
    warning = next(entry for entry in logs if entry["log_level"] == "warning")
    assert warning["unpaired"] == ["POSITIVE", "good"]
    assert bench.reading.total("shadow_divergence_count") == 0
    flips = {(f["from"], f["to"]): n for f, n in bench.reading.series("shadow_flips_total")}
    assert flips == {("POSITIVE", "good"): 1, ("POSITIVE", "NEGATIVE"): 1}


def test_labels_that_stand_for_each_other_are_compared_whole() -> None:
    card = replace(SECOND, labels=("NEGATIVE", "good"))
    bench = Bench(card=card, labels={"good": "POSITIVE"}).ready()
    bench.label("a+", "b-")
    assert bench.reading.total("shadow_agreed_total") == 1
    assert bench.reading.total("shadow_divergence_count") == 2
