"""The steps of the proof, each with what must hold after it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import yaml

from tests.compose.feed import Feed
from tests.compose.report import Report
from tests.compose.stack import ROOT, Stack, until
from tests.containers.engine import Failed
from worker.clock import SystemClock

RATE: Final = 50.0  # records a second, while services come and go

_ALERTS: Final = ROOT / "deploy/prometheus/alerts.yml"
_PAGE, _PROMETHEUS = 9100, 9090
_SOON_S, _LABELLED_S, _READY_S = 90.0, 300.0, 240.0
# The kernel counts throttled periods here: control groups of version 2, or of version 1.
_STATISTICS: Final = "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2> /dev/null; true"


class Proof:
    """Starts a project and takes it through its life.

    Args:
        stack: the project; nothing of it runs yet.
        report: takes the figures.
    """

    def __init__(self, stack: Stack, report: Report) -> None:
        self._stack, self._report = stack, report
        self._clock = SystemClock()

    def run(self, records: int) -> None:
        """Take all steps.

        Args:
            records: how many are labelled before services come and go.

        Raises:
            Failed: something does not hold; the message says what.
        """
        self._starts()
        feed = Feed(self._stack.address(self._only("kafka"), 29092))
        self._labels(feed, records)
        self._scraped(published=records)
        with feed.running(RATE):
            self._scales(feed, 3)
            self._stops_one()
            self._scales(feed, 2)
        self._drains(feed, "planned stops repeated nothing", repeats=False)
        with feed.running(RATE):
            self._survives_a_crash()
            self._survives_a_restart_of_kafka()
        self._drains(feed, "a crash and a restart of Kafka lost nothing", repeats=True)

    def _starts(self) -> None:
        with self._report.step("up --wait: Kafka, a worker and Prometheus are healthy") as note:
            self._stack.up()
            for service in ("kafka", "worker", "prometheus"):
                if not self._stack.healthy(self._only(service)):
                    raise Failed(f"`up --wait` returned before {service} was healthy")
            worker = self._only("worker")
            if self._stack.fetch(worker, _PAGE, "/readyz").strip() != "running":
                raise Failed("`up --wait` returned before the worker was ready")
            note(f"live page at http://{self._stack.address(worker, _PAGE)}/")

    def _labels(self, feed: Feed, records: int) -> None:
        worker = self._only("worker")
        with self._report.step(f"{records:,} records labelled by a worker with one CPU") as note:
            before, began = self._periods(worker), self._clock.monotonic()
            feed.send(records)
            self._until_labelled(feed)
            rate = records / (self._clock.monotonic() - began)
            periods, throttled = (b - a for a, b in zip(before, self._periods(worker), strict=True))
            note(f"{rate:,.0f} records/s with {self._threads()} thread")
            note(f"its CPU limit stopped it in {throttled} of {periods} periods")
            self._audit(feed.acknowledged, repeats=False)

    def _scraped(self, published: int) -> None:
        with self._report.step("Prometheus scrapes the worker and has its rules") as note:
            query = "sum(streamlabel_records_published_total)"
            until(
                lambda: self._value(query) == published,
                f"Prometheus has {published} in {query}",
                _SOON_S,
            )
            (group,) = self._prometheus("rules")["groups"]
            declared = yaml.safe_load(_ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
            broken = [rule["name"] for rule in group["rules"] if rule["health"] == "err"]
            if len(group["rules"]) != len(declared) or broken:
                raise Failed(f"{len(group['rules'])} of {len(declared)} rules, broken: {broken}")
            note(f"{published:,} records published, {len(declared)} rules")

    def _scales(self, feed: Feed, workers: int) -> None:
        with self._report.step(f"scaled to {workers}, under {RATE:g} records/s") as note:
            self._stack.up(workers)
            share = [6 // workers] * workers
            until(lambda: feed.shares() == share, f"each of {workers} has its share", _SOON_S)
            until(
                lambda: self._value("count(streamlabel_ready == 1)") == workers,
                f"Prometheus sees {workers} ready workers",
                _SOON_S,
            )
            names = self._stack.containers("worker")
            for name in names:
                if "<html" not in self._stack.fetch(name, _PAGE, "/"):
                    raise Failed(f"{name} serves no live page")
            note(f"{share[0]} partitions each")
            note(f"live pages at {_listed(self._stack.address(n, _PAGE) for n in names)}")

    def _stops_one(self) -> None:
        with self._report.step("a worker stopped and started") as note:
            name = self._stack.containers("worker")[-1]
            began = self._clock.monotonic()
            self._stack.engine.docker("stop", name)
            took, code = self._clock.monotonic() - began, self._stack.state(name)["ExitCode"]
            if code:
                raise Failed(f"{name} ended with {code} instead of 0: it did not drain")
            note(f"drained in {took:.1f} s, exit code 0")
            self._stack.engine.docker("start", name)
            self._until_healthy(name)

    def _survives_a_crash(self) -> None:
        with self._report.step("a worker killed, and restarted by its policy") as note:
            name = self._stack.containers("worker")[0]
            began = self._clock.monotonic()
            self._stack.crash(name)
            until(lambda: self._stack.state(name)["RestartCount"] == 1, "restarted", _SOON_S)
            self._until_healthy(name)
            note(f"ready again after {self._clock.monotonic() - began:.0f} s")

    def _survives_a_restart_of_kafka(self) -> None:
        workers = self._stack.containers("worker")
        with self._report.step("Kafka restarted") as note:
            before = {name: self._stack.state(name)["StartedAt"] for name in workers}
            self._stack.compose("restart", "kafka")
            for name in (self._only("kafka"), *workers):
                self._until_healthy(name)
            if before != {name: self._stack.state(name)["StartedAt"] for name in workers}:
                raise Failed("a worker ended while Kafka restarted")
            note("the workers stayed, and joined again")

    def _drains(self, feed: Feed, title: str, *, repeats: bool) -> None:
        with self._report.step(title) as note:
            self._until_labelled(feed)
            verdict = self._audit(feed.acknowledged, repeats=repeats)
            counts = f"0 missing, 0 out of order, {verdict['duplicated']} twice"
            note(f"audit of {verdict['consumed']:,} records: {counts}")

    def _until_labelled(self, feed: Feed) -> None:
        until(lambda: not feed.backlog(), "every record is labelled and committed", _LABELLED_S)

    def _until_healthy(self, container: str) -> None:
        until(lambda: self._stack.healthy(container), f"{container} is healthy", _READY_S)

    def _audit(self, sent: int, *, repeats: bool) -> dict[str, Any]:
        """Return the verdict of `streamlabel audit` in a worker's container. Raises Failed."""
        worker = self._stack.containers("worker")[0]
        limit = [] if repeats else ["--allow-duplicates", "0"]
        said = self._stack.inside(worker, "streamlabel", "audit", "--json", "--to-end", *limit)
        verdict: dict[str, Any] = json.loads(said)
        if verdict["consumed"] != sent or verdict["published"] < sent:
            raise Failed(f"{sent} records were sent, and the audit counts {said}")
        return verdict

    def _only(self, service: str) -> str:
        (name,) = self._stack.containers(service)
        return name

    def _prometheus(self, path: str) -> dict[str, Any]:
        said = self._stack.fetch(self._only("prometheus"), _PROMETHEUS, f"/api/v1/{path}")
        return dict(json.loads(said)["data"])

    def _value(self, query: str) -> float:
        found = self._prometheus(f"query?query={quote(query)}")["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def _periods(self, container: str) -> tuple[int, int]:
        """Return how many periods of the CPU limit there were, and in how many it was reached."""
        lines = self._stack.inside(container, "bash", "-c", _STATISTICS).splitlines()
        found = dict(line.split() for line in lines)
        return int(found["nr_periods"]), int(found["nr_throttled"])

    def _threads(self) -> int:
        """Return how many threads the worker took: one for one CPU. Raises Failed."""
        lines = map(json.loads, self._stack.logs("worker").splitlines())
        (limits,) = (line for line in lines if line["message"] == "limits of this process")
        if limits["threads"] != 1 or limits["tokenizer_threads"] != "1":
            raise Failed(f"a worker has one CPU and took more threads: {limits}")
        return int(limits["threads"])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
