"""A real Prometheus watches a real worker: every panel has data, and alerts fire and clear.

The rules run faster than shipped (`tests/deploy/watched.py`). `make alarms` takes minutes and tests
every alert by a fault of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.deploy.project import ROOT, Project, filled
from tests.deploy.test_board import INFO_LABELS, offered
from tests.deploy.watched import PROMETHEUS, RATE, Prometheus, accelerated, watched
from tests.support.workers import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not PROMETHEUS, reason="prometheus is not on PATH"),
]

# Panels without data while one worker runs undisturbed, and why.
EMPTY = {
    "Processes of pools by model": "the worker is not a pool",
    "Records by model and outcome": "the worker has one model",
    "Busy share, by model and stage": "the worker has one model",
    "Label mix, by model": "the worker has one model",
    "Models by name": "the worker has one model",
    "Decided labels": "the model has no decision",
    "Results by route": "the worker has no routes",
    "Copies by route": "the worker has no routes",
    "Filtered records": "the worker has no routes",
    "Conditions on missing fields": "the worker has no conditions",
    "Drain time before partitions are revoked": "no partition is revoked",
    "Restarted pool processes": "the worker is not a pool",
}
ALERTS = "Alerts"  # an annotation; before the first fault it depends on how long the start took
AT_TIMES = {ALERTS, "Time until the lag is zero"}  # the latter has a line while the lag falls
DRIFT = ("StreamlabelLabelDrift", "StreamlabelConfidenceDrift")


def test_every_panel_draws_and_alerts_fire_and_clear(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    """Load, then broken posts of one label, then load again, then SIGKILL."""
    project = Project(ROOT)
    with watched(broker, topics, tmp_path) as (worker, prometheus, feed, posts):
        wait_until(lambda: worker.published >= 1000, what="the reference and the window are full")

        def empty_panels() -> set[str]:
            """Return the panels with a query that has no data."""
            queries = [(panel, q.replace("[1m]", f"[{RATE}]")) for panel, q in project.queries()]
            return {panel for panel, query in queries if not _numbers(prometheus.drawn(query))}

        wait_until(lambda: empty_panels() - AT_TIMES == set(EMPTY), 30, "every panel draws")
        assert unoffered(project, prometheus) == []
        for rule in project.alerts:
            prometheus.drawn(rule["expr"])
        assert not prometheus.firing() & {*DRIFT, "StreamlabelDeadLetters", "StreamlabelStalled"}
        feed.make = posts.broken
        prometheus.wait_for(*DRIFT, "StreamlabelDeadLetters")
        wait_until(lambda: ALERTS not in empty_panels(), 10, "the board shows them")
        feed.make = posts.mixed
        prometheus.wait_for_silence(*DRIFT, "StreamlabelDeadLetters")
        assert "StreamlabelDown" not in prometheus.firing()
        worker.kill()
        prometheus.wait_for("StreamlabelDown")


def unoffered(project: Project, prometheus: Prometheus) -> list[str]:
    """Return the variables without a value, and the labels that an info metric lacks."""
    faults = [
        name
        for name, selector, label in offered(project)
        if not prometheus.ask(f"label/{label}/values", **{"match[]": filled(selector)})
    ]
    for name, labels in INFO_LABELS.items():
        if name == "streamlabel_each_model_info":  # of several models; the worker has one
            continue
        series = prometheus.ask("series", **{"match[]": name})
        if not any(labels <= one.keys() for one in series):
            faults.append(f"{name}: {series}")
    return faults


def _numbers(series: list[tuple[dict[str, str], list[float]]]) -> list[float]:
    return [value for _, values in series for value in values]


def test_the_accelerated_rules_are_all_of_the_rules() -> None:
    """Every minute becomes seconds, and no rule is lost."""
    text = Project(ROOT).text("deploy/prometheus/alerts.yml")
    faster = accelerated(text)
    assert "m]" in text
    assert "m]" not in faster
    assert faster.count('"alert"') == text.count("- alert:")
