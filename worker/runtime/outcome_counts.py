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

    Sums are made first: each call of a collector takes a lock.

    Args:
        metrics: the collectors.
        outcomes: results and dead letters, at least one.
        now_ms: the wall clock.
        inflight: no longer includes the outcomes.
    """

    def age_of(outcome: Encoded) -> float:
        return max(0.0, (now_ms - outcome.happened_ms) / 1000)

    results = [outcome for outcome in outcomes if outcome.reason is None]
    traced = [outcome for outcome in outcomes if outcome.trace_id]
    labels = Counter(outcome.label for outcome in results)
    reasons = Counter(o.reason.value for o in outcomes if o.reason is not None)
    with metrics.lock:
        for outcome in traced:
            metrics.end_to_end.observe(age_of(outcome), {"trace_id": outcome.trace_id or ""})
        observe_all(metrics.end_to_end, [age_of(o) for o in outcomes if not o.trace_id])
        metrics.time_lag.set(age_of(outcomes[-1]))
        observe_all(metrics.confidence, [outcome.score for outcome in results])
        metrics.published.inc(len(results))
        metrics.truncated.inc(sum(outcome.truncated for outcome in results))
        metrics.expired.inc(sum(outcome.expired for outcome in outcomes))
        for label, number in labels.items():
            metrics.labels.labels(label).inc(number)
        for reason, number in reasons.items():
            metrics.dead_lettered.labels(reason).inc(number)
        show_inflight(metrics, inflight)


def show_inflight(metrics: Metrics, inflight: OffsetTracker) -> None:
    """Set the gauges of records in flight and of records held."""
    metrics.inflight_records.set(inflight.records)
    metrics.inflight_bytes.set(inflight.bytes)
    metrics.held_records.set(inflight.held_records)
    metrics.held_bytes.set(inflight.held_bytes)
