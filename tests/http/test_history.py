"""The history of a worker: exact sizes and values, and numbers that stay after a run."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest

from tests.http.test_snapshot import Watched
from worker.http import history as history_module
from worker.http.history import (
    COARSE_ROWS,
    FINE_ROWS,
    LABEL_COLUMNS,
    LABELS_EVERY,
    MANY_LABELS,
    RANGES,
    TOP_LABELS,
)
from worker.http.reading import Reading


@pytest.fixture
def watched() -> Watched:
    return Watched()


def points(watched: Watched, name: str) -> list[dict[str, Any]]:
    answer = watched.history.points(name)
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    return list(answer["points"])


def run(watched: Watched, seconds: int, per_second: int = 0) -> None:
    for _ in range(seconds):
        if per_second:
            watched.label(per_second)
        watched.clock.sleep(1)
        watched.history.read()


def test_a_range_has_one_point_for_each_step(watched: Watched) -> None:
    run(watched, 4000, per_second=3)
    assert watched.history.points("5m") | {"points": []} == {
        "range": "5m",
        "step_s": 1,
        "points": [],
    }
    for name, number, step in (("5m", 301, 1), ("1h", 361, 10), ("24h", 67, 60)):
        found = points(watched, name)
        assert abs(len(found) - number) <= 1, name
        steps = {later["at"] - earlier["at"] for earlier, later in pairwise(found[1:-1])}
        assert steps == {1000 * step}, name
        assert {point["labelled"] for point in found[1:]} == {3.0}, name


def test_fifteen_minutes_of_seconds_are_kept_and_a_day_of_tens(watched: Watched) -> None:
    run(watched, FINE_ROWS + 50)
    assert len(watched.history._fine) == FINE_ROWS == 15 * 60
    assert len(watched.history._coarse) == (FINE_ROWS + 50) / 10
    assert COARSE_ROWS * 10 == 24 * 3600


def test_a_longer_range_has_the_mean_of_rates_and_the_highest_lag(watched: Watched) -> None:
    """Every text is in one of the intervals; a peak of the lag is not lost."""
    run(watched, 20)
    for n in range(100):
        watched.metrics.offset_lag.labels("in", "0").set(9000 if n == 53 else 10)
        run(watched, 1, per_second=7 if n % 10 == 3 else 0)
    run(watched, 20)
    hour = points(watched, "1h")
    assert sum(point["labelled"] for point in hour) * 10 == pytest.approx(70)
    assert max(point["lag"] for point in hour if point["lag"]) == 9000
    assert sum(point["lag"] == 9000 for point in hour) == 1


def test_memory_is_bounded_over_two_days(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second of 48 hours, with rows that cost nothing to compute."""
    empty, row = watched.history.newest, {"labelled": 5.0, "lag": 7.0, "p99": 0.1}
    monkeypatch.setattr(history_module, "Reading", lambda *_: empty)
    monkeypatch.setattr(watched.metrics.registry, "collect", list)
    monkeypatch.setattr(watched.history, "_row", lambda: row)
    monkeypatch.setattr(watched.history, "_choose_labels", lambda: None)
    monkeypatch.setattr(watched.history.activity, "note", lambda *_: None)
    run(watched, 47 * 3600)
    size = watched.history.bytes
    tracemalloc.start()
    run(watched, 3600)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert watched.history.bytes == size == (FINE_ROWS + COARSE_ROWS) * (8 + 4 * len(row))
    assert grown < 20_000
    assert len(watched.history._recent) <= 33
    assert len(points(watched, "24h")) == pytest.approx(24 * 60, abs=1)


def test_the_rings_take_no_more_than_they_say(watched: Watched) -> None:
    for n in range(200):
        watched.label(1 + n, f"label-{n}")
        run(watched, 1)
    columns = LABEL_COLUMNS + 7
    assert watched.history.bytes <= (FINE_ROWS + COARSE_ROWS) * (8 + 4 * columns) < 1_300_000
    assert len(watched.history._labels) == LABEL_COLUMNS


def test_points_have_the_most_frequent_labels_and_the_rest_in_others(watched: Watched) -> None:
    run(watched, 10)
    for n in range(20):
        watched.label(10 * (n + 1), f"label-{n:02}")
    run(watched, 5)
    newest = points(watched, "5m")[-1]
    assert list(newest["labels"]) == [f"label-{n:02}" for n in range(8, 20)]
    assert len(newest["labels"]) == TOP_LABELS
    assert newest["labels"]["label-19"] == 40
    assert newest["others"] == pytest.approx(sum(range(1, 9)) * 10 / 5)
    assert newest["labelled"] == sum(newest["labels"].values()) + newest["others"]
    assert points(watched, "5m")[0]["labels"]["label-19"] == 0


def test_a_label_that_becomes_frequent_takes_the_column_of_a_rare_one(watched: Watched) -> None:
    for n in range(LABEL_COLUMNS):
        watched.label(n + 1, f"label-{n:02}")
        run(watched, 1)
    watched.label(1000, "late")
    run(watched, 1)
    assert "late" in watched.history._labels
    assert "label-00" not in watched.history._labels
    newest = points(watched, "5m")[-1]
    assert newest["labels"]["late"] == 200


def test_a_late_reader_sees_what_happened(watched: Watched) -> None:
    run(watched, 5)
    run(watched, 60, per_second=50)
    ended = watched.clock.wall_ms()
    run(watched, 600)
    snapshot = watched.after(1)
    assert snapshot["rates"] == {"arriving": 0, "labelled": 0, "dead_letters": 0}
    assert snapshot["last_at"] == ended
    assert snapshot["at"] - snapshot["last_at"] == 601_000
    assert 0.025 < snapshot["latency"]["p99"] <= 0.05
    assert snapshot["run"] == {
        "first_at": ended - 59_000,
        "last_at": ended,
        "busy_s": 60.0,
        "labelled": 50.0,
        "highest": 50.0,
        "latency": snapshot["latency"],
    }
    assert sum(point["labelled"] for point in points(watched, "1h")) * 10 == pytest.approx(3000)


def test_the_peak_of_a_short_run_is_not_below_its_mean(watched: Watched) -> None:
    """Both count the seconds with outcomes, although the rate that is shown is of five seconds."""
    run(watched, 60)
    for number in (100, 250, 13):
        run(watched, 1, per_second=number)
    told = watched.after(10)["run"]
    assert (told["busy_s"], told["labelled"], told["highest"]) == (3.0, 121.0, 250.0)


def test_the_numbers_before_anything_happened(watched: Watched) -> None:
    snapshot = watched.after(1)
    assert snapshot["last_at"] is None
    assert snapshot["run"]["labelled"] is None
    assert snapshot["lag"]["records"] is None
    assert snapshot["lag"]["trend"] == "unknown"
    assert snapshot["latency"]["p99"] is None
    assert snapshot["shares"]["stages"] == {}
    assert snapshot["rates"]["labelled"] == 0


def test_a_gap_without_readings_is_one_long_reading(watched: Watched) -> None:
    run(watched, 30, per_second=10)
    watched.label(600)
    watched.clock.sleep(3600)
    watched.history.read()
    assert points(watched, "5m")[-1]["labelled"] == pytest.approx(600 / 3600, abs=1e-4)


def test_every_range_is_answered_from_the_start(watched: Watched) -> None:
    assert {name: points(watched, name) for name in RANGES} == {name: [] for name in RANGES}
    run(watched, 1)
    assert [len(points(watched, name)) for name in RANGES] == [1, 0, 0]


# -- many labels ---------------------------------------------------------------------------------


def test_counters_of_many_labels_are_read_every_five_seconds(watched: Watched) -> None:
    """They are most of a reading's cost. All other figures are of this second."""
    for n in range(MANY_LABELS + 1):
        watched.label(1, f"label-{n:03}")
    run(watched, 1)
    found = []
    for n in range(3 * LABELS_EVERY):
        watched.label(10, "label-000")
        watched.metrics.model_changes.labels("taken_over").inc()
        snapshot = watched.after(1)
        found.append(snapshot["labels"]["label-000"])
        assert snapshot["totals"]["published"] == MANY_LABELS + 1 + 10 * (n + 1)
        assert watched.history.newest.total("model_changes_total") == n + 1
        complete = Reading(watched.metrics.registry.collect())
        for name in complete._labels.keys() - {"labels_total"}:
            assert watched.history.newest.series(name) == complete.series(name), name
    steps = [later - earlier for earlier, later in pairwise(found[-2 * LABELS_EVERY - 1 :])]
    assert [step for step in steps if step] == [10 * LABELS_EVERY] * 2
    assert {point["labels"]["label-000"] for point in points(watched, "5m")[-5:]} == {10}


def test_counters_of_a_hundred_labels_are_read_every_second(watched: Watched) -> None:
    for n in range(MANY_LABELS):
        watched.label(1, f"label-{n:03}")
    for n in range(8):
        watched.label(10, "label-000")
        assert watched.after(1)["labels"]["label-000"] == 10 * (n + 1) + 1


# -- the lag -------------------------------------------------------------------------------------


def lag_after(watched: Watched, *records: int, partition: str = "0") -> dict[str, Any]:
    snapshot: dict[str, Any] = {}
    for number in records:
        watched.metrics.offset_lag.labels("in", partition).set(number)
        snapshot = watched.after(1)
    return {name: snapshot["lag"][name] for name in ("until_zero_s", "trend")}


@pytest.mark.parametrize(
    ("records", "until_zero_s", "trend"),
    [
        ((1000,), None, "unknown"),
        ((1000, 900, 800), 8.0, "shrinking"),
        ((800, 900, 1000), None, "growing"),
        ((1000, 1001, 1000), None, "steady"),
        ((10, 5, 0), 0.0, "none"),
        ((0, 0), 0.0, "none"),
    ],
)
def test_the_time_until_the_lag_is_zero(
    watched: Watched, records: tuple[int, ...], until_zero_s: float | None, trend: str
) -> None:
    run(watched, 40)
    assert lag_after(watched, *records) == {"until_zero_s": until_zero_s, "trend": trend}


@pytest.mark.parametrize("outcome", ["labelled", "dead"])
def test_the_lag_has_no_trend_until_what_was_done_is_committed(
    watched: Watched, outcome: str
) -> None:
    """The lag falls with a commit: before it, a worker that drains looks as if it stood."""
    metrics, lags = watched.metrics, []
    for records in (1000, 1000, 1001, 800):
        lags.append(lag_after(watched, records))
        done = metrics.published if outcome == "labelled" else metrics.dead_lettered.labels("x")
        done.inc(72)
    assert lags[:3] == [{"until_zero_s": None, "trend": "unknown"}] * 3
    assert lags[3] == {"until_zero_s": 800 / 200 * 3, "trend": "shrinking"}


def test_a_lag_that_stays_the_same_beside_arrivals_is_steady(watched: Watched) -> None:
    """Arrivals are counted once a second, so both rates differ a little at any moment."""
    for _ in range(40):
        watched.metrics.arrived.inc(72)
        watched.metrics.published.inc(72)
        lag_after(watched, 56)
    watched.metrics.published.inc(72)
    assert lag_after(watched, 56) == {"until_zero_s": None, "trend": "steady"}


def test_a_partition_that_comes_or_goes_is_no_change_of_the_lag(watched: Watched) -> None:
    lag_after(watched, 1000, 900)
    watched.metrics.offset_lag.labels("in", "1").set(500_000)
    assert lag_after(watched, 800) == {
        "until_zero_s": pytest.approx(500_800 / 200 * 2),
        "trend": "shrinking",
    }
