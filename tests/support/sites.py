"""The HTTP server of a worker alone, with metrics set by tests."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.support.records import item
from tests.support.workers import ObedientModel, clock, wait_until
from worker.core.offsets import OffsetTracker
from worker.core.records import Classified, Encoded, Prediction, RecordRef
from worker.http.feeds import PageFeeds
from worker.http.health import Verdict
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.runtime.outcome_counts import count_outcomes
from worker.settings import HttpSettings

JSON = {"Content-Type": "application/json"}


def post(
    port: int, text: Any, *, record: dict[str, Any] | None = None, **headers: str
) -> tuple[int, str]:
    """Return the answer to a text asked on the page, with its record if there is one."""
    question = {"text": text} | ({"record": record} if record is not None else {})
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/classify", json.dumps(question), JSON | headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()


class FixedHealth:
    """Health set by a test."""

    verdict: Verdict = (True, "running")

    def live(self) -> Verdict:
        return self.verdict

    def ready(self) -> Verdict:
        return self.verdict


class CountedMetrics(Metrics):
    """Metrics that count how often they are read."""

    reads = 0

    def __init__(self) -> None:
        super().__init__()
        collect = self.registry.collect

        def counting() -> Any:
            self.reads += 1
            return collect()

        self.registry.collect = counting  # type: ignore[method-assign]


class Site:
    """The HTTP server of a worker, and one thread instead of its stages."""

    def __init__(self, **settings: object) -> None:
        self.metrics, self.health = CountedMetrics(), FixedHealth()
        self.feeds = PageFeeds.on(HttpSettings(show_texts=True), clock)
        self.ask_queue, self.model = self.feeds.ask_queue, ObedientModel()
        self.server = HttpServer(
            HttpSettings.model_validate({"port": 0} | settings),
            self.metrics,
            self.health,
            self.feeds,
            self.ask_queue,
        )
        self._stop, self.held, self.loaded = (threading.Event() for _ in range(3))
        self._stages = threading.Thread(target=self._run)
        self._stages.start()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            if self.loaded.is_set() and not self.held.is_set():
                self.ask_queue.tokenise(self.model.aside)
                self.ask_queue.infer()

    def load_model(self) -> None:
        """Let the stages answer questions from now on."""
        self.loaded.set()
        wait_until(lambda: self.ask_queue.ready, what="the model is loaded")

    def label(self, *texts: str, label: str = "POSITIVE") -> None:
        """Pretend that these texts were just labelled."""
        prediction = Prediction((0.1, 0.9), 3, truncated=False)
        outcomes = [
            Classified(item(n, text), prediction, self.model.card) for n, text in enumerate(texts)
        ]
        self.feeds.posts.note(outcomes)
        now_ms = clock.wall_ms()
        ref = RecordRef("in", 0, 0, 1)
        one = Encoded(ref, "out", None, b"", [], now_ms - 40, None, label, score=0.9)
        self.metrics.consumed.inc(len(texts))
        count_outcomes(self.metrics, [one] * len(texts), now_ms, OffsetTracker())

    def close(self) -> None:
        self._stop.set()
        self._stages.join()
        self.server.close()

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        with closing(connection):
            connection.request(
                method, path, body, {k.replace("_", "-"): v for k, v in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def json(self, path: str) -> Any:
        """Return the document at a path."""
        status, headers, body = self.ask(path)
        assert status == 200, body
        assert headers["content-type"] == "application/json"
        return json.loads(body)

    def classify(self, text: Any, **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return post(self.server.port, text, **named)

    @contextmanager
    def watching(self) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        with closing(connection):
            connection.request("GET", "/events")
            with connection.getresponse() as answer:
                yield answer
