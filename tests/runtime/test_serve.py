"""serve: the model loads while the topics are checked; a stop or a fault ends both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.workers import ObedientModel
from worker.errors import BrokerAway, Fatal, ModelUnavailable, TopicMissing
from worker.runtime import launch, serve
from worker.settings import Settings, load


class Start:
    """One call of `serve` with a model that the test completes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop, self.loaded = threading.Event(), Future[Any]()
        self.order: list[str] = []
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(serve.Launcher, "complete", lambda *_: self)

    def run(self) -> None:
        """Run, as a worker does that is complete."""
        self.order.append("run")

    def serve(self, preflight: Exception | None = None, **settings: Any) -> None:
        """Run it; `preflight` is the error that the check of the topics meets."""

        def require(_: Settings) -> dict[str, Any]:
            self.order.append("topics")
            if preflight:
                raise preflight
            return {}

        self._monkeypatch.setattr(launch, "require", require)
        expose: Any = lambda *_: nullcontext()  # noqa: E731
        serve.serve(load(settings, environ={}).settings, self.stop, self._load, expose, page=False)

    @contextmanager
    def _load(self, *_: object, **__: object) -> Iterator[Future[Any]]:
        self.order.append("load")
        try:
            yield self.loaded
        finally:
            self.order.append("abandon")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    return Start(monkeypatch)


def test_the_topics_are_checked_while_the_model_loads(start: Start) -> None:
    threading.Timer(
        0.3, lambda: start.loaded.set_result((ObedientModel(), ObedientModel()))
    ).start()
    start.serve()
    assert start.order == ["load", "topics", "abandon", "run"]


def test_a_stop_does_not_wait_for_the_model(start: Start) -> None:
    threading.Timer(0.3, start.stop.set).start()
    with capture_logs() as logs:
        start.serve()
    assert start.order == ["load", "topics", "abandon"]
    assert "stopped before the model was ready" in {entry["event"] for entry in logs}


def test_a_missing_topic_does_not_wait_for_the_model(start: Start) -> None:
    with pytest.raises(TopicMissing, match="no such topic"):
        start.serve(TopicMissing("no such topic"))
    assert start.order == ["load", "topics", "abandon"]


def test_the_model_loads_while_the_worker_waits_for_topics(start: Start) -> None:
    start.loaded.set_result((ObedientModel(), ObedientModel()))
    with capture_logs() as logs:
        start.serve(TopicMissing("no such topic"), wait_for_topics=True)
    assert start.order == ["load", "topics", "abandon", "run"]
    assert ("waiting for topics", "no such topic") in {
        (entry["event"], entry.get("reason")) for entry in logs
    }


@pytest.mark.parametrize("preflight", [None, BrokerAway("no broker answers")])
def test_a_missing_model_is_reported_with_or_without_a_broker(
    start: Start, preflight: Exception | None
) -> None:
    start.loaded.set_exception(ModelUnavailable("no such model"))
    with pytest.raises(Fatal, match="no such model"):
        start.serve(preflight)
    assert start.order == ["load", "topics", "abandon"]
