"""Counts polled records and acknowledged outcomes.

Owns: the choice of counters for an outcome, and which of them change together.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from worker.core.offsets import OffsetTracker
from worker.core.records import Encoded
from worker.core.replay import is_replay
from worker.logs import get_logger
from worker.metrics import Metrics, observe_all
from worker.runtime.model_counts import count_models
from worker.settings import RouteSettings
from worker.settings.routes import route_names

log = get_logger(__name__)

NO_ROUTE = "(none)"  # in metrics: no route matched, and the result went to `output.topic`


def count_polled(metrics: Metrics, records: int, inflight: OffsetTracker) -> None:
    """Count records that were polled; `inflight` includes them."""
    with metrics.lock:
        metrics.consumed.inc(records)
        show_inflight(metrics, inflight)


def count_outcomes(
    metrics: Metrics,
    outcomes: Sequence[Encoded],
    now_ms: int,
    inflight: OffsetTracker,
    *,
    routes: bool = False,
) -> None:
    """Count acknowledged outcomes.

    Sums are made first: each call of a collector takes a lock. A replay keeps the timestamp of a
    record that may be days old, so the latency and the time lag leave it out.

    Args:
        metrics: the collectors.
        outcomes: results, dead letters and notes, at least one.
        now_ms: the wall clock.
        inflight: no longer includes the outcomes.
        routes: whether results are counted by route.
    """
    results = [one for one in outcomes if one.reason is None and not one.filtered]
    first_tries = [outcome for outcome in outcomes if not is_replay(outcome.headers)]
    labels = Counter([outcome.label for outcome in results])
    scores = [outcome.score for outcome in results]
    if labels.pop("", 0):  # the first of several models is absent
        scores = [outcome.score for outcome in results if outcome.label]
    by_route = Counter(one.route for one in results) if routes else {}
    with metrics.lock:
        _show_latency(metrics, first_tries, now_ms)
        observe_all(metrics.confidence, scores)
        metrics.published.inc(len(results))
        metrics.truncated.inc(sum([outcome.truncated for outcome in results]))
        metrics.expired.inc(sum([outcome.expired for outcome in outcomes]))
        for label, number in labels.items():
            metrics.labels.labels(label).inc(number)
        _count_decisions(metrics, results)
        count_models(metrics, results)
        for route, number in by_route.items():
            metrics.routed.labels(route or NO_ROUTE).inc(number)
        if len(results) < len(outcomes):
            _count_others(metrics, outcomes)
        show_inflight(metrics, inflight)


def _count_decisions(metrics: Metrics, results: Sequence[Encoded]) -> None:
    if decided := [one.decided for one in results if one.decided]:
        for label, number in Counter(chain.from_iterable(decided)).items():
            metrics.decided_labels.labels(label).inc(number)
    if uncertain := [one for one in results if one.uncertain]:
        metrics.uncertain.inc(len(uncertain))


def _count_others(metrics: Metrics, outcomes: Sequence[Encoded]) -> None:
    """Count dead letters and notes."""
    reasons = Counter(one.reason.value for one in outcomes if one.reason is not None)
    filtered = Counter((one.filtered, one.route) for one in outcomes if one.filtered)
    for (reason, route), number in filtered.items():
        metrics.filtered.labels(reason, route).inc(number)
    for reason, number in reasons.items():
        metrics.dead_lettered.labels(reason).inc(number)


def create_route_series(metrics: Metrics, routes: tuple[RouteSettings, ...]) -> None:
    """Let every series of the routes begin at 0: an alert sees no increase before the second."""
    metrics.routed.labels(NO_ROUTE)
    for name, route in zip(route_names(routes), routes, strict=True):
        if route.drop:
            metrics.filtered.labels("route", name)
        elif route.also:
            metrics.copies.labels(name)
            metrics.copies_lost.labels(name)
        else:
            metrics.routed.labels(name)


def count_copies(metrics: Metrics, copies: Iterable[Encoded]) -> None:
    """Count acknowledged copies, and dead letters in place of refused ones."""
    counts = Counter((copy.route, copy.reason) for copy in copies)
    for (route, reason), number in counts.items():
        if reason is None:
            metrics.copies.labels(route).inc(number)
            continue
        metrics.copies_lost.labels(route).inc(number)
        log.warning(
            "a topic refused copies of results; each is a dead letter with the route's name in the "
            "header streamlabel-copy",
            route=route,
            reason=reason.value,
            copies=number,
        )


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
