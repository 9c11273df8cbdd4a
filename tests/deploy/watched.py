"""Runs a worker under load and a real Prometheus with faster alert rules. No tests.

Only time differs from the shipped rules: a minute there is a second here, and every `for` is one
second. The quarter of an hour in which restarts are counted becomes 90 seconds, because a worker
needs seconds to start.
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
from tests.support.ports import free_port
from tests.support.workers import Record, WorkerProcess, clock, wait_until
from worker.inference.loading import load
from worker.settings import ModelSettings

PROMETHEUS = shutil.which("prometheus")
RATE = "4s"  # stands for $__rate_interval: a few scrapes
LABELS = ("NEGATIVE", "NEUTRAL", "POSITIVE")
# The lowest values allowed, so that drift is known within seconds.
OPTIONS = ("--drift-reference-records", "300", "--drift-window-records", "200", "--log-format", "json")  # fmt: skip
Sample = tuple[dict[str, str], list[float]]


def accelerated(rules: str) -> str:
    """Return the alert rules as JSON, with seconds for minutes."""
    document = yaml.safe_load(rules)
    for rule in document["groups"][0]["rules"]:
        rule["expr"] = _in_seconds(rule["expr"])
        if "for" in rule:
            rule["for"] = "1s"
        if rule["alert"] == "StreamlabelLagGrowing":  # its thresholds are durations as well
            rule["expr"] = rule["expr"].replace("> 15", "> 0.25").replace("> 60", "> 1")
    text: str = json.dumps(document)
    return text


def _in_seconds(expression: str) -> str:
    for minutes, seconds in (("5", "5"), ("10", "10"), ("15", "90")):
        expression = expression.replace(f"[{minutes}m]", f"[{seconds}s]")
        expression = expression.replace(f"offset {minutes}m", f"offset {seconds}s")
    return expression


class Prometheus:
    """A Prometheus server that runs for the length of a `with` block.

    Args:
        home: folder for its configuration, log and data.
        target: the port that it scrapes.
    """

    def __init__(self, home: Path, target: int) -> None:
        self._home, self._target, self._port = home, target, free_port()
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._home.mkdir()
        (self._home / "alerts.yml").write_text(accelerated(Project(ROOT).text(ALERTS)))
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
        """Let service discovery find the worker, or no worker."""
        targets = [{"targets": [f"127.0.0.1:{self._target}"]}] if found else []
        new = self._home / "targets.new"
        new.write_text(json.dumps(targets))
        new.rename(self._home / "targets.json")

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an API response.

        Raises:
            AssertionError: Prometheus refused the query; has its message.
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
        """Return the series that a panel would draw for the last seconds, each with its numbers."""
        now = clock.wall_ms() / 1000
        data = self.ask("query_range", query=query, start=now - seconds, end=now, step=1)
        series = [
            (row["metric"], [float(value) for _, value in row["values"]]) for row in data["result"]
        ]
        return [(m, [v for v in values if not math.isnan(v)]) for m, values in series]

    def firing(self) -> set[str]:
        """Return the alerts that fire now; none while Prometheus does not answer."""
        with contextlib.suppress(OSError):
            alerts = self.ask("alerts")["alerts"]
            return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
        return set()

    def wait_for(self, *alerts: str, timeout: float = 60) -> float:
        """Wait until all of these fire; return the seconds."""
        return self._wait(lambda: set(alerts) <= self.firing(), f"{alerts} fire", timeout)

    def wait_for_silence(self, *alerts: str, timeout: float = 60) -> float:
        """Wait until none of these fires; return the seconds."""
        return self._wait(lambda: not set(alerts) & self.firing(), f"{alerts} clear", timeout)

    def _wait(self, condition: Callable[[], bool], what: str, timeout: float) -> float:
        begin = clock.monotonic()
        wait_until(condition, timeout, what)
        return clock.monotonic() - begin


class SteadyFeed:
    """Sends a steady stream into a topic for the length of a `with` block.

    Attributes:
        make: makes the nth record; a test changes it.
        rate: records a second.
    """

    def __init__(self, broker: Broker, topic: str, make: Callable[[int], Record]) -> None:
        self.make, self.rate = make, 200
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
                key, value = self.make(number)
                self._producer.send(self._topic, key=key, value=value)
                number += 1


class PostMaker:
    """Makes records by the labels that a model of random weights gives their texts."""

    def __init__(self, model: Path) -> None:
        tokeniser, classifier = load(ModelSettings(name=str(model), device="cpu", threads=1), None)
        texts = [f"post number {n}" for n in range(300)]
        by_label: dict[str, list[tuple[float, str]]] = {}
        for part in tokeniser.tokenise(texts):
            for position, prediction in zip(part.positions, classifier.predict(part), strict=True):
                score = max(prediction.probabilities)
                label = LABELS[prediction.probabilities.index(score)]
                by_label.setdefault(label, []).append((score, texts[position]))
        rarest = min(by_label, key=lambda label: len(by_label[label]))
        self._most_confident = [text for _, text in sorted(by_label[rarest])[-20:]]

    def mixed(self, n: int) -> Record:
        """Make a record of any label; some texts repeat, and some exceed the model's length."""
        text = f"post number {n % 300}" if n % 10 else f"long post number {n} " * 20
        return _record(n, text)

    def one_sided(self, n: int) -> Record:
        """Make a record of the rarest label, from the texts with the highest confidence."""
        return _record(n, self._most_confident[n % len(self._most_confident)])

    def of_kind(self, kind: str) -> Callable[[int], Record]:
        """Return a function that makes records of a kind, for routes to look at."""

        def make(n: int) -> Record:
            value = {"id": n, "text": f"post number {n % 300}", "kind": kind}
            return b"k", json.dumps(value).encode()

        return make

    def broken(self, n: int) -> Record:
        """Make an unreadable record one time in five, else one of the rarest label."""
        return self.one_sided(n) if n % 5 else (b"k", b"\xff")


def _record(n: int, text: str) -> Record:
    return f"author-{n % 7}".encode(), json.dumps({"id": n, "text": text}).encode()


def make_model(home: Path) -> Path:
    """Make a model of three labels, two of which it gives to the posts here."""
    return make_checkpoint(home / "model", labels=LABELS, max_tokens=32)


@contextlib.contextmanager
def watched(
    broker: Broker, topics: Topics, home: Path, *more: str
) -> Iterator[tuple[WorkerProcess, Prometheus, SteadyFeed, PostMaker]]:
    """Start a worker with a second model, its Prometheus and its input; yield them when ready."""
    model = make_model(home)
    second = make_checkpoint(home / "second", labels=LABELS, max_tokens=32, seed=1)
    compared = ("--shadow-name", str(second), "--shadow-share", "0.5")
    worker = WorkerProcess(broker, topics, model, home / "worker.log", *OPTIONS, *compared, *more)
    try:
        posts = PostMaker(model)
        with (
            Prometheus(home / "prometheus", worker.port) as prometheus,
            SteadyFeed(broker, topics.input, posts.mixed) as feed,
        ):
            worker.wait_ready()
            yield worker, prometheus, feed, posts
    finally:
        worker.kill()
