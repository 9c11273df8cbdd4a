"""The comparison of two models as the page and the report show it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.clocks import HandClock
from tests.support.records import CARD, item
from tests.support.workers import ObedientModel
from worker.core.records import Classified, Prediction
from worker.core.shadow import Comparison, TextComparison
from worker.http.reading import Reading
from worker.http.shadow import comparison_member, shadow_member
from worker.metrics import DIVERGENCE_BUCKETS, Metrics, PoolMetrics
from worker.pool.totals import Totals
from worker.runtime.shadow import Shadow
from worker.runtime.shadow_start import build_shadow_labeller
from worker.settings import load

SECOND = replace(CARD, name="second", revision="v2", weights_sha256="cd" * 32)


def compared(texts: int, flips: int, weights: str = "ab" * 32, at: float = 0.0) -> Metrics:
    """Return the metrics of a worker after some texts, `flips` of them with another label."""
    metrics, clock, model = Metrics(), HandClock(), ObedientModel(card=SECOND)
    clock.now += at
    settings = load({"shadow.name": "second", "shadow.share": 1.0}, environ={}).settings
    shadow = Shadow(settings.shadow, metrics, clock)
    shadow.use(build_shadow_labeller(settings, model, model))
    card = replace(CARD, weights_sha256=weights)
    pairs = [(0.75, 0.25)] * flips + [(0.25, 0.75)] * (texts - flips)
    outcomes = [
        Classified(item(n, str(n)), Prediction(pair, 3, truncated=False), card)
        for n, pair in enumerate(pairs)
    ]
    model.on_predict = lambda some: clock.sleep(0.002 * len(some))
    clock.now += 1
    shadow.note(outcomes, 1.0)
    shadow.between()
    metrics.stage.labels("infer").observe(1.0)
    metrics.published.inc(texts)
    return metrics


def read(metrics: Metrics | Totals) -> Reading:
    return Reading(metrics.registry.collect())


def test_there_is_none_without_a_second_model() -> None:
    assert shadow_member(read(Metrics())) is None


def test_a_second_model_that_loads_has_no_figures_yet() -> None:
    metrics = Metrics()
    settings = load({"shadow.name": "second"}, environ={}).settings.shadow
    Shadow(settings, metrics, HandClock())
    member = shadow_member(read(metrics))
    assert member is not None
    assert (member["state"], member["share"], member["texts"]) == ("loading", 0.1, 0)
    assert (member["agreement"], member["divergence"], member["since"]) == (None, None, None)
    assert member["latency"] == {"shadow_ms": None, "model_ms": None}


def test_the_figures_are_those_of_the_metrics() -> None:
    member = shadow_member(read(compared(50, 5)))
    assert member is not None
    assert (member["model"], member["against"], member["state"]) == ("second", "tiny", "comparing")
    assert member["facts"]["revision"] == "v2"
    assert (member["texts"], member["agreed"], member["agreement"]) == (50, 45, 0.9)
    low, high = member["interval"]
    assert 0.75 < low < 0.9 < high < 0.97
    assert member["flips"] == [{"from": "NEGATIVE", "to": "POSITIVE", "number": 5}]
    assert member["divergence"]["p50"] <= DIVERGENCE_BUCKETS[0]
    assert member["divergence"]["mean"] == pytest.approx(0.1 * 0.18872, abs=1e-4)
    assert member["latency"]["shadow_ms"] == pytest.approx(2.0)
    assert member["latency"]["model_ms"] == pytest.approx(20.0)
    assert member["behind"] == 0


def test_a_pool_adds_its_processes() -> None:
    totals = Totals(PoolMetrics())
    for slot, metrics in enumerate((compared(50, 5), compared(30, 1))):
        totals.note(slot, list(metrics.registry.collect()))
    member = shadow_member(read(totals))
    assert member is not None
    assert (member["texts"], member["agreed"]) == (80, 74)
    assert member["flips"] == [{"from": "NEGATIVE", "to": "POSITIVE", "number": 6}]
    assert member["share"] == 1.0


def test_while_a_pool_changes_its_model_the_newer_comparison_is_shown() -> None:
    totals = Totals(PoolMetrics())
    for slot, metrics in enumerate((compared(50, 5), compared(8, 1, "ef" * 32, at=60))):
        totals.note(slot, list(metrics.registry.collect()))
    member = shadow_member(read(totals))
    assert member is not None
    assert (member["texts"], member["agreed"]) == (8, 7)


def test_a_comparison_made_from_topics_has_the_same_members() -> None:
    comparison = Comparison(DIVERGENCE_BUCKETS)
    for n in range(100):
        comparison.note(TextComparison("a", f"b{n % 25}", 0.02))
    member = comparison_member(comparison)
    assert (member["texts"], member["agreement"], len(member["flips"])) == (100, 0.0, 20)
    assert member["flips_left_out"] == 20
    assert member["flips"][0] == {"from": "a", "to": "b0", "number": 4}
    assert 0.01 < member["divergence"]["p50"] < 0.03
