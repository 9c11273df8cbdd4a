"""A worker under load that a real Prometheus watches, with the alert rules in a hurry. No test in it.

Prometheus runs as shipped but for time: a minute of the rules is a second here (but for the quarter
of an hour in which restarts are counted: a worker needs seconds to start), and one second is
patience enough.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import yaml
from kafka import KafkaProducer

from tests.conftest import Broker, Topics
from tests.deploy.project import ALERTS, ROOT, Project
from tests.support.models import make_checkpoint
from tests.support.workers import Record, WorkerProcess, clock, free_port, wait_until
from worker.inference.loading import load
from worker.settings import ModelSettings

PROMETHEUS = shutil.which("prometheus")
RATE = "4s"  # what Grafana would put for $__rate_interval: a few scrapes
LABELS = ("NEGATIVE", "NEUTRAL", "POSITIVE")
# As small as is allowed, so that drift is known within seconds.
OPTIONS = ("--drift-reference-records", "300", "--drift-window-records", "200", "--log-format", "json")  # fmt: skip
Sample = tuple[dict[str, str], list[float]]


def hurried(rules: str) -> str:
    """The alert rules with seconds for minutes."""
    document = yaml.safe_load(rules)
    for rule in document["groups"][0]["rules"]:
        rule["expr"] = _in_seconds(rule["expr"])
        if "for" in rule:
            rule["for"] = "1s"
        if rule["alert"] == "StreamlabelLagGrowing":  # its thresholds are times as well
            rule["expr"] = rule["expr"].replace("> 15", "> 0.25").replace("> 60", "> 1")
    told: str = json.dumps(document)
    return told


def _in_seconds(expression: str) -> str:
    for minutes, seconds in (("5", "5"), ("10", "10"), ("15", "90")):
        expression = expression.replace(f"[{minutes}m]", f"[{seconds}s]")
        expression = expression.replace(f"offset {minutes}m", f"offset {seconds}s")
    return expression


class Prometheus:
    """The real one, for as long as the context lasts.

    Args:
        home: for its configuration, log and data.
        target: the port that is scraped.
    """

    def __init__(self, home: Path, target: int) -> None:
        self._home, self._target, self._port = home, target, free_port()
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._home.mkdir()
        (self._home / "alerts.yml").write_text(hurried(Project(ROOT).text(ALERTS)))
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {"job_name": "streamlabel", "file_sd_configs": [{"files": ["targets.json"]}]}
            ],
        }
        (self._home / "prometheus.yml").write_text(json.dumps(config))
        self.discover(found=True)
        command = [
            *(str(PROMETHEUS), f"--config.file={self._home / 'prometheus.yml'}"),
            *(f"--storage.tsdb.path={self._home / 'data'}", "--log.level=warn"),
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def discover(self, *, found: bool) -> None:
        """Whether discovery knows of the worker."""
        targets = [{"targets": [f"127.0.0.1:{self._target}"]}] if found else []
        new = self._home / "targets.new"
        new.write_text(json.dumps(targets))
        new.rename(self._home / "targets.json")

    def ask(self, path: str, **parameters: Any) -> Any:
        """An answer of its API.

        Raises:
            AssertionError: it has refused the query, and says why.
        """
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def drawn(self, query: str, seconds: float = 12) -> list[Sample]:
        """What a panel would draw of the last seconds: series with their numbers."""
        now = clock.wall_ms() / 1000
        found = self.ask("query_range", query=query, start=now - seconds, end=now, step=1)
        values = [
            (one["metric"], [float(value) for _, value in one["values"]]) for one in found["result"]
        ]
        return [(m, [v for v in some if not math.isnan(v)]) for m, some in values]

    def firing(self) -> set[str]:
        """Names of the alerts that fire now; none while it does not answer."""
        with contextlib.suppress(OSError):
            alerts = self.ask("alerts")["alerts"]
            return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}
        return set()

    def wait_for(self, *alerts: str, timeout: float = 60) -> float:
        """Seconds until all of these fire."""
        return self._wait(lambda: set(alerts) <= self.firing(), f"{alerts} fire", timeout)

    def wait_for_silence(self, *alerts: str, timeout: float = 60) -> float:
        """Seconds until none of these fires."""
        return self._wait(lambda: not set(alerts) & self.firing(), f"{alerts} are over", timeout)

    def _wait(self, condition: Callable[[], bool], what: str, timeout: float) -> float:
        begin = clock.monotonic()
        wait_until(condition, timeout, what)
        return clock.monotonic() - begin


class Feed:
    """A steady stream into a topic, for as long as the context lasts.

    Attributes:
        kind: makes the nth record; a test changes it.
        rate: records a second.
    """

    def __init__(self, broker: Broker, topic: str, kind: Callable[[int], Record]) -> None:
        self.kind, self.rate = kind, 200
        self._topic, self._stop = topic, threading.Event()
        self._producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers.split(","))
        self._thread = threading.Thread(target=self._run, name="feed")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.close(5)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.1):
            for _ in range(self.rate // 10):
                key, value = self.kind(number)
                self._producer.send(self._topic, key=key, value=value)
                number += 1


class RecentPosts:
    """Records by what a model of random weights says of them."""

    def __init__(self, model: Path) -> None:
        tokeniser, classifier = load(ModelSettings(name=str(model), device="cpu", threads=1), None)
        texts = [f"post number {n}" for n in range(300)]
        said: dict[str, list[tuple[float, str]]] = {}
        for some in tokeniser.tokenise(texts):
            for place, prediction in zip(some.positions, classifier.predict(some), strict=True):
                score = max(prediction.probabilities)
                label = LABELS[prediction.probabilities.index(score)]
                said.setdefault(label, []).append((score, texts[place]))
        rare = min(said, key=lambda label: len(said[label]))
        self._surest = [text for _, text in sorted(said[rare])[-20:]]

    def mixed(self, n: int) -> Record:
        """All kinds; some come again, and some are longer than the model takes."""
        text = f"post number {n % 300}" if n % 10 else f"long post number {n} " * 20
        return _record(n, text)

    def one_sided(self, n: int) -> Record:
        """Those alone that have the rarest label, and of them the surest."""
        return _record(n, self._surest[n % len(self._surest)])

    def broken(self, n: int) -> Record:
        """One in five can't be read."""
        return self.one_sided(n) if n % 5 else (b"k", b"\xff")


def _record(n: int, text: str) -> Record:
    return f"author-{n % 7}".encode(), json.dumps({"id": n, "text": text}).encode()


def make_model(home: Path) -> Path:
    """Of three labels, of which it gives two to the posts here."""
    return make_checkpoint(home / "model", labels=LABELS, max_tokens=32)


@contextlib.contextmanager
def watched(
    broker: Broker, topics: Topics, home: Path, *more: str
) -> Iterator[tuple[WorkerProcess, Prometheus, Feed, RecentPosts]]:
    """A worker that is ready, its Prometheus, its input and what to put there."""
    model = make_model(home)
    worker = WorkerProcess(broker, topics, model, home / "worker.log", *OPTIONS, *more)
    try:
        posts = RecentPosts(model)
        with (
            Prometheus(home / "prometheus", worker.port) as prometheus,
            Feed(broker, topics.input, posts.mixed) as feed,
        ):
            worker.wait_ready()
            yield worker, prometheus, feed, posts
    finally:
        worker.kill()
