"""Counts polled records and acknowledged outcomes.

Owns: the choice of counters for an outcome, and which of them change together.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from worker.core.offsets import OffsetTracker
from worker.core.records import Encoded
from worker.core.replay import is_replay
from worker.metrics import Metrics, observe_all


def count_polled(metrics: Metrics, records: int, inflight: OffsetTracker) -> None:
    """Count records that were polled; `inflight` includes them."""
    with metrics.lock:
        metrics.consumed.inc(records)
        show_inflight(metrics, inflight)


def count_outcomes(
    metrics: Metrics, outcomes: Sequence[Encoded], now_ms: int, inflight: OffsetTracker
) -> None:
    """Count acknowledged outcomes.

    Sums are made first: each call of a collector takes a lock. A replay keeps the timestamp of a
    record that may be days old, so the latency and the time lag leave it out.

    Args:
        metrics: the collectors.
        outcomes: results and dead letters, at least one.
        now_ms: the wall clock.
        inflight: no longer includes the outcomes.
    """
    results = [outcome for outcome in outcomes if outcome.reason is None]
    first_tries = [outcome for outcome in outcomes if not is_replay(outcome.headers)]
    labels = Counter(outcome.label for outcome in results)
    decided = Counter(label for outcome in results for label in outcome.decided)
    uncertain = sum(outcome.uncertain for outcome in results)
    reasons = Counter(o.reason.value for o in outcomes if o.reason is not None)
    with metrics.lock:
        _show_latency(metrics, first_tries, now_ms)
        observe_all(metrics.confidence, [outcome.score for outcome in results])
        metrics.published.inc(len(results))
        metrics.truncated.inc(sum(outcome.truncated for outcome in results))
        metrics.expired.inc(sum(outcome.expired for outcome in outcomes))
        for label, number in labels.items():
            metrics.labels.labels(label).inc(number)
        for label, number in decided.items():
            metrics.decided_labels.labels(label).inc(number)
        if uncertain:
            metrics.uncertain.inc(uncertain)
        for reason, number in reasons.items():
            metrics.dead_lettered.labels(reason).inc(number)
        show_inflight(metrics, inflight)


def _show_latency(metrics: Metrics, outcomes: Sequence[Encoded], now_ms: int) -> None:
    ages = [(max(0.0, (now_ms - one.happened_ms) / 1000), one.trace_id) for one in outcomes]
    for age, trace_id in ages:
        if trace_id:
            metrics.end_to_end.observe(age, {"trace_id": trace_id})
    observe_all(metrics.end_to_end, [age for age, trace_id in ages if not trace_id])
    if ages:
        metrics.time_lag.set(ages[-1][0])


def show_inflight(metrics: Metrics, inflight: OffsetTracker) -> None:
    """Set the gauges of records in flight and of records held."""
    metrics.inflight_records.set(inflight.records)
    metrics.inflight_bytes.set(inflight.bytes)
    metrics.held_records.set(inflight.held_records)
    metrics.held_bytes.set(inflight.held_bytes)
