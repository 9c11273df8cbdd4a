"""Metrics of a pool: those of many processes, merged into one set, in which no counter falls."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from worker.http.ask import Answer
from worker.http.notes import Notes
from worker.metrics import Metrics, PoolMetrics
from worker.pool.reports import ChildReport, decode
from worker.pool.totals import Totals, merge


@pytest.fixture
def totals() -> Totals:
    return Totals(PoolMetrics())


def report(totals: Totals, slot: int, metrics: Metrics) -> None:
    """Note a report as it comes over the pipe."""
    line = ChildReport((True, ""), (True, ""), list(metrics.registry.collect())).encode()
    totals.note(slot, decode(line).metrics)


def process(published: int = 0, seconds: float = 0.01) -> Metrics:
    metrics = Metrics()
    metrics.build.info({"version": "1"})
    metrics.published.inc(published)
    metrics.labels.labels("POSITIVE").inc(published)
    for _ in range(published):
        metrics.end_to_end.observe(seconds)
    return metrics


def value(totals: Totals, name: str, **labels: str) -> float | None:
    return totals.registry.get_sample_value(name, labels)


def test_no_counter_falls_when_a_process_is_replaced(totals: Totals) -> None:
    report(totals, 0, process(70))
    report(totals, 1, process(30, seconds=2))
    created = value(totals, "streamlabel_records_published_created")

    def shown() -> tuple[float | None, ...]:
        return (
            value(totals, "streamlabel_records_published_total"),
            value(totals, "streamlabel_labels_total", label="POSITIVE"),
            value(totals, "streamlabel_end_to_end_seconds_count"),
            value(totals, "streamlabel_end_to_end_seconds_bucket", le="0.01"),
        )

    assert shown() == (100, 100, 100, 70)
    totals.retire(1)
    assert shown() == (100, 100, 100, 70)
    report(totals, 1, process(0))
    assert shown() == (100, 100, 100, 70)
    report(totals, 1, process(5))
    assert shown() == (105, 105, 105, 75)
    totals.retire(1)
    totals.retire(0)
    assert shown() == (105, 105, 105, 75)
    assert value(totals, "streamlabel_records_published_created") == created


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inflight_records", 10),
        ("inflight_bytes", 10),
        ("paused", 10),
        ("forward_tokens", 3),
        ("time_lag", 7),
        ("oldest_uncommitted", 7),
        ("label_drift", 7),
        ("confidence_drift", 7),
        ("ready", 10),
        ("live", 0),  # the parent's own gauge, without a pool here
    ],
)
def test_gauges_are_merged_by_their_declared_mode(
    totals: Totals, name: str, expected: float
) -> None:
    for slot, number in enumerate((3, 7)):
        metrics = Metrics()
        gauge = getattr(metrics, name)
        gauge.set(number)
        report(totals, slot, metrics)
    assert value(totals, gauge._name) == expected


def test_a_partitions_lag_is_not_summed(totals: Totals) -> None:
    """Two processes may report it while the partition moves; the higher value is shown."""
    for slot, lag in enumerate((5, 4)):
        metrics = Metrics()
        metrics.offset_lag.labels("in", "0").set(lag)
        metrics.offset_lag.labels("in", str(slot + 1)).set(1)
        report(totals, slot, metrics)
    lags = [value(totals, "streamlabel_offset_lag", topic="in", partition=p) for p in "012"]
    assert lags == [5, 1, 1]


def test_each_slot_has_its_state_while_its_process_lives(totals: Totals) -> None:
    for slot in (0, 1):
        metrics = Metrics()
        metrics.state.set(2 + slot)
        report(totals, slot, metrics)
    assert value(totals, "streamlabel_state", slot="0") == 2
    assert value(totals, "streamlabel_state", slot="1") == 3
    totals.retire(1)
    assert value(totals, "streamlabel_state", slot="1") is None


def test_a_gauge_without_a_mode_is_not_merged() -> None:
    parts = []
    for slot in "01":
        registry = CollectorRegistry()
        Gauge("unknown", "Help.", registry=registry).set(4)
        parts.append((slot, registry.collect()))
    (family,) = merge(parts, {})
    assert [(s.labels, s.value) for s in family.samples] == [({"slot": s}, 4) for s in "01"]


def test_infos_are_shown_once_and_memory_includes_the_parent(totals: Totals) -> None:
    alone = value(totals, "process_resident_memory_bytes")
    for slot in (0, 1):
        report(totals, slot, process())
    assert value(totals, "streamlabel_build_info", version="1") == 1
    assert alone is None or value(totals, "process_resident_memory_bytes") > 2 * alone  # type: ignore[operator]


def test_prometheus_can_parse_the_merged_metrics(totals: Totals) -> None:
    """In both formats, with each family once."""
    for slot in (0, 1):
        report(totals, slot, process(3))
    plain = [f.name for f in parse(generate_latest(totals.registry).decode())]
    metrics = [f.name for f in parse_openmetrics(generate_openmetrics(totals.registry).decode())]
    for names in (plain, metrics):
        assert len(set(names)) == len(names)
    assert "streamlabel_process_restarts" in metrics


def test_a_merged_bucket_has_the_newest_exemplar(
    totals: Totals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of a process that has ended."""

    def seen(*observed: tuple[int, float, str]) -> Metrics:
        metrics = process(1)
        for now, seconds, trace_id in observed:
            monkeypatch.setattr(time, "time", lambda now=now: now)
            metrics.end_to_end.observe(seconds, {"trace_id": trace_id})
        return metrics

    def exemplars() -> dict[str, tuple[str, float, float]]:
        families = parse_openmetrics(generate_openmetrics(totals.registry).decode())
        return {
            sample.labels["le"]: (
                sample.exemplar.labels["trace_id"],
                sample.exemplar.value,
                float(sample.exemplar.timestamp),
            )
            for family in families
            for sample in family.samples
            if sample.exemplar
        }

    report(totals, 0, seen((3, 0.01, "a"), (5, 0.02, "b")))
    report(totals, 1, seen((4, 0.009, "c"), (2, 0.019, "d")))
    shown = {"0.01": ("c", 0.009, 4), "0.025": ("b", 0.02, 5)}
    assert exemplars() == shown
    totals.retire(1)
    report(totals, 1, seen((1, 0.009, "e")))
    assert exemplars() == shown


def test_a_scrape_can_select_metrics_by_name(totals: Totals) -> None:
    report(totals, 0, process(3))
    selected = totals.registry.restricted_registry(["streamlabel_records_published_total"])
    assert [[(s.name, s.value) for s in f.samples] for f in selected.collect()] == [
        [("streamlabel_records_published_total", 3)]
    ]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "the model failed on this text",
        Answer({"label": "YES", "scores": [["YES", 0.9], ["NO", 0.1]]}, 0.25),
    ],
)
def test_a_report_survives_encoding_and_decoding(answer: Answer | str | None) -> None:
    notes = Notes(({"id": "in/0/1", "at": 5},), (), ({"name": "m", "since": 3},))
    report = ChildReport((False, "stalled"), (True, "running"), [], "out of memory", notes, answer)
    assert decode(report.encode()) == report


@pytest.mark.parametrize("cut", [2, 10, 40])
def test_an_incomplete_line_is_not_a_report(cut: int) -> None:
    line = ChildReport((True, "running"), (True, "running")).encode()
    with pytest.raises(ValueError, match="line 1"):
        decode(line[:-cut])


def test_the_parents_own_series_keep_their_slot_and_two_models_are_two_series() -> None:
    """While a pool changes its model, both models have an Info, and each slot names its own."""
    parent = PoolMetrics()
    totals = Totals(parent)
    for slot, name in enumerate(("old", "new")):
        parent.process_model.labels(str(slot), name, "main", "ab").set(1)
        metrics = Metrics()
        metrics.model.info({"name": name})
        totals.note(slot, list(metrics.registry.collect()))
    samples = [sample for family in totals.collect() for sample in family.samples]
    models = {s.labels["name"] for s in samples if s.name == "streamlabel_model_info"}
    slots = {
        (s.labels["slot"], s.labels["model"])
        for s in samples
        if s.name == "streamlabel_process_model"
    }
    assert (models, slots) == ({"old", "new"}, {("0", "old"), ("1", "new")})
