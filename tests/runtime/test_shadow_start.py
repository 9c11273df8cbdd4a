"""shadowing: a second model is loaded while the worker runs, and its failure stops nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.records import CARD, item
from tests.support.workers import ObedientModel
from worker.core.records import Classified, Encoded, Prediction
from worker.errors import ModelUnavailable, TopicMissing
from worker.http.reading import Reading
from worker.metrics import Metrics, ShadowState
from worker.runtime import shadow_start
from worker.runtime.shadow_start import shadowing
from worker.settings import Settings, load


class Loads:
    """A fake `loading`: keeps the settings that it was called with, and a future to complete."""

    def __init__(self) -> None:
        self.asked: list[tuple[Settings, bool]] = []
        self.future, self.ended = Future[Any](), False

    @contextmanager
    def __call__(
        self, settings: Settings, metrics: Metrics, *, beside: bool = False
    ) -> Iterator[Future[Any]]:
        self.asked.append((settings, beside))
        try:
            yield self.future
        finally:
            self.ended = True

    def complete(self) -> None:
        second = ObedientModel(card=replace(CARD, name="second", weights_sha256="cd" * 32))
        self.future.set_result((second, second))


class Topic:
    """A fake `ShadowTopic`."""

    def __init__(self, settings: Settings, topic: str, on_lost: object) -> None:
        if topic == "missing":
            raise TopicMissing("shadow.topic = 'missing' does not exist: create it")
        self.sent: list[Encoded] = []
        self.closed = False
        TOPICS.append(self)

    def send(self, results: list[Encoded]) -> None:
        self.sent += results

    def close(self) -> None:
        self.closed = True


TOPICS: list[Topic] = []


@pytest.fixture(autouse=True)
def topics(monkeypatch: pytest.MonkeyPatch) -> None:
    TOPICS.clear()
    monkeypatch.setattr(shadow_start, "ShadowTopic", Topic)


def settings(**shadow: Any) -> Settings:
    values = {"name": "second", "share": 1.0} | shadow
    return load({f"shadow.{name}": value for name, value in values.items()}, environ={}).settings


def state(metrics: Metrics) -> float:
    return Reading(metrics.registry.collect()).total("shadow_state")


def outcome(offset: int = 0) -> Classified:
    return Classified(item(offset, "hello"), Prediction((0.25, 0.75), 3, truncated=False), CARD)


def test_without_a_second_model_nothing_is_loaded() -> None:
    loads, metrics = Loads(), Metrics()
    with shadowing(load({}, environ={}).settings, loads, metrics, HandClock()) as shadow:
        assert shadow is None
    assert not loads.asked
    assert state(metrics) == ShadowState.NONE


def test_it_is_loaded_beside_the_first_model_and_then_compared() -> None:
    loads, metrics, clock = Loads(), Metrics(), HandClock()
    with shadowing(settings(), loads, metrics, clock) as shadow:
        assert shadow is not None
        ((asked, beside),) = loads.asked
        assert (asked.model.name, beside) == ("second", True)
        assert state(metrics) == ShadowState.LOADING
        loads.complete()
        assert state(metrics) == ShadowState.COMPARING
        shadow.note([outcome()], 1.0)
        clock.now += 1
        shadow.between()
    assert loads.ended
    reading = Reading(metrics.registry.collect())
    assert reading.total("shadow_texts_total") == 1
    assert reading.total("batch_tokens_count") == 0, "the first model's metrics show it alone"


def test_a_model_that_cannot_be_loaded_is_logged_and_the_worker_goes_on() -> None:
    loads, metrics = Loads(), Metrics()
    with (
        capture_logs() as logs,
        shadowing(settings(), loads, metrics, HandClock()) as shadow,
    ):
        loads.future.set_exception(ModelUnavailable("no such model: second"))
        assert shadow is not None
        shadow.note([outcome()], 1.0)
    assert [(entry["shadow"], entry["reason"]) for entry in logs] == [
        ("second", "no such model: second")
    ]
    assert state(metrics) == ShadowState.FAILED
    skipped = Reading(metrics.registry.collect()).by("shadow_skipped_total", "reason")
    assert skipped["failed"] == 1


def test_a_worker_that_ends_while_it_loads_says_nothing_of_it() -> None:
    """Leaving the block raises SystemExit in the thread that loads."""
    loads, metrics = Loads(), Metrics()
    with capture_logs() as logs, shadowing(settings(), loads, metrics, HandClock()):
        loads.future.set_exception(SystemExit())
    assert not logs
    assert state(metrics) == ShadowState.LOADING


def test_its_results_go_to_its_own_topic() -> None:
    loads, clock = Loads(), HandClock()
    with shadowing(settings(topic="shadow"), loads, Metrics(), clock) as shadow:
        loads.complete()
        assert shadow is not None
        shadow.note([outcome(7)], 1.0)
        clock.now += 1
        shadow.between()
    (topic,) = TOPICS
    (sent,) = topic.sent
    assert (sent.topic, sent.ref.offset, sent.label) == ("shadow", 7, "POSITIVE")
    assert b'"name":"second"' in sent.value
    assert topic.closed


def test_a_topic_that_is_missing_does_not_stop_the_comparison() -> None:
    loads, metrics, clock = Loads(), Metrics(), HandClock()
    with (
        capture_logs() as logs,
        shadowing(settings(topic="missing"), loads, metrics, clock) as shadow,
    ):
        loads.complete()
        assert shadow is not None
        shadow.note([outcome()], 1.0)
        clock.now += 1
        shadow.between()
    assert "shadow.topic = 'missing' does not exist" in logs[0]["reason"]
    reading = Reading(metrics.registry.collect())
    assert reading.total("shadow_texts_total") == 1
    assert reading.total("shadow_unpublished_total") == 1
