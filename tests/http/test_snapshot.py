"""A snapshot has the registry's counts, and rates and quantiles between two readings."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from schemas import DeadLetterReason
from tests.support.clocks import HandClock
from worker.core.offsets import OffsetTracker
from worker.core.records import Encoded, RecordRef
from worker.http.about import About
from worker.http.feeds import PageFeeds
from worker.http.health import Verdict
from worker.http.history import History
from worker.http.reading import between, quantile
from worker.http.snapshot import SnapshotBuilder
from worker.metrics import Metrics
from worker.runtime.outcome_counts import count_outcomes
from worker.settings import HttpSettings, load


class JoiningHealth:
    def live(self) -> Verdict:
        return True, "running"

    def ready(self) -> Verdict:
        return False, "joining the group"


def encoded(
    label: str, age_ms: int, now_ms: int, reason: DeadLetterReason | None = None
) -> Encoded:
    ref = RecordRef("in", 0, 0, 1)
    return Encoded(ref, "out", None, b"", [], now_ms - age_ms, reason, label, score=0.93)


class Watched:
    """A worker's metrics, and the snapshots of them."""

    def __init__(self) -> None:
        self.metrics, self.clock = Metrics(), HandClock()
        feeds = PageFeeds.on(HttpSettings(), self.clock)
        about = About(load(environ={}), self.clock.wall_ms())
        self.history = History(self.metrics, self.clock)
        self.snapshots = SnapshotBuilder(self.history, JoiningHealth(), feeds, about, self.clock)

    def label(self, number: int, label: str = "POSITIVE", age_ms: int = 40) -> None:
        now_ms = self.clock.wall_ms()
        outcomes = [encoded(label, age_ms, now_ms)] * number
        count_outcomes(self.metrics, outcomes, now_ms, OffsetTracker())

    def after(self, seconds: float) -> dict[str, Any]:
        self.clock.sleep(seconds)
        self.history.read()
        return json.loads(json.dumps(self.snapshots.build()))  # type: ignore[no-any-return]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_totals_are_those_of_the_registry(watched: Watched) -> None:
    now_ms = watched.clock.wall_ms()
    watched.label(5)
    watched.label(3, "NEGATIVE")
    dead = encoded("", 0, now_ms, DeadLetterReason.NOT_JSON)
    count_outcomes(watched.metrics, [dead], now_ms, OffsetTracker())
    watched.metrics.offset_lag.labels("in", "2").set(7)
    watched.metrics.offset_lag.labels("in", "10").set(1)
    watched.metrics.consumed.inc(12)
    watched.metrics.label_drift.set(0.3)
    snapshot = watched.after(1)
    assert snapshot["totals"]["published"] == 8
    assert snapshot["totals"]["consumed"] == 12
    assert snapshot["labels"] == {"NEGATIVE": 3, "POSITIVE": 5}
    assert snapshot["dead_letters"]["by_reason"] == {"not_json": 1}
    assert snapshot["lag"]["records"] == 8
    assert [row["partition"] for row in snapshot["lag"]["partitions"]] == [2, 10]
    assert [0.9, 0.95, 8] in snapshot["confidence"]
    assert sum(value for _, _, value in snapshot["confidence"]) == 8
    assert snapshot["worker"]["reason"] == "joining the group"
    assert snapshot["drift"] == [
        {"of": "label", "index": 0.3, "reading": "shifted"},
        {"of": "confidence", "index": 0.0, "reading": ""},
    ]


def test_the_first_rate_counts_from_the_start(watched: Watched) -> None:
    watched.label(100)
    assert watched.after(4)["rates"]["labelled"] == 25
    watched.label(30)
    assert watched.after(2)["rates"]["labelled"] == 15


def test_rates_and_quantiles_cover_recent_seconds_only(watched: Watched) -> None:
    watched.after(1)
    watched.label(1000, age_ms=9_000)
    assert 5 < watched.after(1)["latency"]["p50"] < 10
    for _ in range(40):
        watched.label(10, age_ms=40)
        snapshot = watched.after(1)
    assert snapshot["rates"]["labelled"] == 10
    assert 0.025 < snapshot["latency"]["p99"] <= 0.05
    watched.label(6)
    assert watched.after(600)["rates"]["labelled"] == 0.01, "no reading in between"


def test_a_busy_stage_is_shown_as_its_share_of_the_time(watched: Watched) -> None:
    watched.after(1)
    watched.metrics.busy.labels("infer").inc(3)
    watched.metrics.stage.labels("infer").observe(1.5)
    watched.metrics.stage.labels("infer").observe(0.5)
    stages = {stage["name"]: stage for stage in watched.after(4)["stages"]}
    assert stages["infer"] == {"name": "infer", "seconds": 1.0, "busy": 0.6}
    assert stages["queue"]["seconds"] is None
    assert stages["queue"]["busy"] is None


def test_a_model_of_a_thousand_labels_shows_the_most_frequent(watched: Watched) -> None:
    for n in range(1000):
        watched.label(n + 1, f"label-{n:03}")
    snapshot = watched.after(1)
    assert list(snapshot["labels"]) == [f"label-{n}" for n in range(900, 1000)]
    assert snapshot["others"] == {"labels": 900, "total": 900 * 901 / 2}
    assert list(snapshot["point"]["labels"]) == [f"label-{n}" for n in range(988, 1000)]


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (math.inf, 0.0)], 0.5, None),
        ([(1.0, 10.0), (2.0, 10.0), (math.inf, 10.0)], 0.5, 0.5),
        ([(1.0, 0.0), (2.0, 10.0), (math.inf, 10.0)], 0.9, 1.9),
        ([(1.0, 5.0), (2.0, 5.0), (math.inf, 10.0)], 0.99, 2.0),
    ],
)
def test_quantiles(
    buckets: list[tuple[float, float]], share: float, expected: float | None
) -> None:
    assert quantile(buckets, share) == pytest.approx(expected)


def test_between_returns_the_observations_of_each_bucket() -> None:
    assert between([(1.0, 2.0)], [(1.0, 5.0), (2.0, 6.0)]) == [(1.0, 3.0), (2.0, 6.0)]
