"""A real Prometheus beside a real worker: every panel has something to draw, alerts come and go.

Time runs faster in the rules here, and nowhere else (`tests/deploy/watched.py`). All alerts, each by
its own fault, take minutes: `make alarms`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.deploy.project import ROOT, Project
from tests.deploy.watched import PROMETHEUS, RATE, hurried, watched
from tests.support.workers import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PROMETHEUS, reason="prometheus is not on PATH"),
]

# Panels that have nothing to draw while one worker runs undisturbed, and why.
EMPTY = {
    "Draining before partitions are given up": "no partition is given up",
    "Restarts within pools": "the worker is no pool",
}
ALERTS = "Alerts"  # the annotation; before a fault it depends on how slow the start was
DRIFT = ("StreamlabelLabelDrift", "StreamlabelConfidenceDrift")


def test_every_panel_draws_and_alerts_fire_and_clear(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    """One worker's life: load, broken and one-sided posts, load again, SIGKILL."""
    project = Project(ROOT)
    with watched(broker, topics, tmp_path) as (worker, prometheus, feed, posts):
        wait_until(lambda: worker.published >= 1000, what="reference and window are full")

        def without() -> set[str]:
            """Panels of which a query has nothing to draw."""
            queries = [(where, q.replace("[1m]", f"[{RATE}]")) for where, q in project.queries()]
            return {where for where, query in queries if not _numbers(prometheus.drawn(query))}

        wait_until(lambda: without() - {ALERTS} == set(EMPTY), 30, "every panel draws")
        for rule in project.alerts:
            prometheus.drawn(rule["expr"])
        assert not prometheus.firing() & {*DRIFT, "StreamlabelDeadLetters", "StreamlabelStalled"}
        feed.kind = posts.broken
        prometheus.wait_for(*DRIFT, "StreamlabelDeadLetters")
        wait_until(lambda: ALERTS not in without(), 10, "the board shows them")
        feed.kind = posts.mixed
        prometheus.wait_for_silence(*DRIFT, "StreamlabelDeadLetters")
        assert "StreamlabelDown" not in prometheus.firing()
        worker.kill()
        prometheus.wait_for("StreamlabelDown")


def _numbers(series: list[tuple[dict[str, str], list[float]]]) -> list[float]:
    return [value for _, values in series for value in values]


def test_rules_in_a_hurry_are_the_same_rules() -> None:
    """All minutes have become seconds, and nothing else is lost."""
    text = Project(ROOT).text("deploy/prometheus/alerts.yml")
    told = hurried(text)
    assert "m]" in text
    assert "m]" not in told
    assert told.count('"alert"') == text.count("- alert:")
