"""Launcher: what was begun is ended where the rest can't be put together."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.clocks import HandClock
from tests.support.doubles import Producer, Source
from tests.support.workers import ObedientModel
from worker.core.state import State
from worker.core.topics import TopicInfo
from worker.errors import AccessDenied, BrokerAway
from worker.metrics import Metrics
from worker.runtime import launch
from worker.runtime.launch import Launcher
from worker.runtime.progress import Progress
from worker.settings import load


class Bench:
    """A launcher whose consumer and producer are stand-ins."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.settings = load({}, environ={}).settings
        self.clock, self.stop = HandClock(), threading.Event()
        self.source, self.producer = Source(self.clock, self.stop.set), Producer()
        self.topics = {name: TopicInfo(1, 1) for name in self.settings.topics.all}
        patch.setattr(launch, "require", lambda _: self.topics)
        patch.setattr(launch, "KafkaSource", lambda *_: self.source)
        patch.setattr(launch, "Publisher", lambda *_: self.producer)

    def run(self) -> None:
        metrics = Metrics()
        progress = Progress(120.0, metrics, self.clock)
        progress.move(State.WARMING)
        model = ObedientModel()
        Launcher(self.settings, metrics, progress, self.clock, self.stop).run(model, model)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def refusing(error: Exception) -> Any:
    def make(*_: object, **__: object) -> None:
        raise error

    return make


def test_a_worker_that_runs_ends_what_was_begun_itself(bench: Bench) -> None:
    bench.run()
    assert bench.source.told[-1:] == ["close"]
    assert bench.source.told.count("close") == len(bench.producer.ends) == 1


def test_the_consumer_is_closed_where_no_producer_can_be_had(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "Publisher", refusing(AccessDenied("no")))
    with pytest.raises(AccessDenied):
        bench.run()
    assert bench.source.told == ["close"]


def test_the_consumer_is_closed_where_the_waiting_for_a_producer_is_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        bench.stop.set()
        raise BrokerAway("not yet")

    monkeypatch.setattr(launch, "Publisher", away)
    bench.run()
    assert bench.source.told == ["close"]


@pytest.mark.parametrize("part", ["Labeller", "Pipeline"])
def test_consumer_and_producer_are_closed_where_the_rest_can_not_be_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(launch, part, refusing(LookupError("odd")))
    with pytest.raises(LookupError):
        bench.run()
    assert bench.source.told == ["close"]
    assert bench.producer.ends == ["close within 1 s"]


def test_the_consumer_is_closed_though_the_producer_can_not_be(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.producer.before = refusing(RuntimeError("broken"))
    monkeypatch.setattr(launch, "Pipeline", refusing(LookupError("odd")))
    with pytest.raises(RuntimeError, match="broken"):
        bench.run()
    assert bench.source.told == ["close"]
