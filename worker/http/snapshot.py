"""Builds the page's snapshot: the worker at one moment, with rates over the last seconds.

Owns: the readings of the last 30 seconds, and five minutes of points for the charts.
Thread: http, on the event loop, once a second while there are readers.
Must not import: kafka, torch, worker.runtime.

All figures come from the registry behind /metrics, so that page and metrics agree.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from worker.clock import Clock
from worker.core.drift import reading
from worker.core.state import State
from worker.http.health import Health
from worker.http.reading import Buckets, Reading, between, quantile
from worker.http.recent_posts import PostSource
from worker.http.shadow import shadow_member
from worker.metrics import STAGES

Json = dict[str, Any]

RATE_WINDOW: Final = 5.0  # seconds
MEAN_WINDOW: Final = 30.0  # seconds, for means and quantiles: a p99 needs hundreds of observations
KEPT: Final = 300  # points of the charts: five minutes
_PARTITIONS: Final = 12  # shown, those with the most lag
_LABELS: Final = 8  # shown, the most frequent ones
_DEAD: Final = "records_dead_lettered_total"


class MetricsSource(Protocol):
    """Provides the metrics: of one worker, or of a pool."""

    @property
    def registry(self) -> CollectorRegistry:
        """The registry behind /metrics and the page."""
        ...


class SnapshotBuilder:
    """Takes readings and builds a snapshot from each.

    Args:
        metrics, health, posts: what is shown.
        clock: dates the snapshots.
        classify: `http.classify`, shown so that the page offers its form.

    Attributes:
        points: the charts' points, oldest first.
    """

    def __init__(
        self,
        metrics: MetricsSource,
        health: Health,
        posts: PostSource,
        clock: Clock,
        *,
        classify: bool = True,
    ) -> None:
        self._metrics, self._health, self._posts = metrics, health, posts
        self._clock, self._classify = clock, classify
        self._readings: deque[tuple[float, Reading]] = deque()
        self.points: deque[Json] = deque(maxlen=KEPT)

    def take(self) -> Json:
        """Build the current snapshot, and keep its point for the charts."""
        now, new = self._clock.monotonic(), Reading(self._metrics.registry.collect())
        while self._readings and now - self._readings[0][0] > MEAN_WINDOW + 0.5:
            self._readings.popleft()
        self._readings.append((now, new))
        window = self._since(now - MEAN_WINDOW)
        snapshot: Json = {
            "at": self._clock.wall_ms(),
            "worker": self._worker(new),
            "totals": _totals(new),
            "labels": _top_labels(new.by("labels_total", "label")),
            "texts_per_second": self._rate("records_published_total"),
            "latency": _latency(window[1], new),
            "lag": _lag(new),
            "stages": _stages(window, now, new),
            "batches": _batches(window[1], new),
            "dead_letters": {k: v for k, v in new.by(_DEAD, "reason").items() if v},
            "rebalances": new.by("rebalances_total", "kind"),
            "drift": _drift(new),
            "confidence": _per_bucket(new.buckets("confidence")),
            "posts": self._posts.latest(),
            "shadow": shadow_member(new),
        }
        point = self._point(snapshot)
        self.points.append(point)
        return snapshot | {"point": point}

    def _since(self, moment: float) -> tuple[float, Reading]:
        """Return the oldest reading since `moment`, or the newest if there is no other."""
        recent = (entry for entry in self._readings if entry[0] >= moment - 0.5)
        return next(recent, self._readings[-1])

    def _rate(self, name: str, **where: str) -> float | None:
        now, new = self._readings[-1]
        then, old = self._since(now - RATE_WINDOW)
        if then >= now:
            return None
        return (new.total(name, **where) - old.total(name, **where)) / (now - then)

    def _worker(self, new: Reading) -> Json:
        live, ready = self._health.live(), self._health.ready()
        return {
            "version": new.facts("build_info").get("version", ""),
            "model": new.facts("model_info"),
            "states": sorted(State(int(value)).name.lower() for _, value in new.series("state")),
            "live": live[0],
            "ready": ready[0],
            "reason": live[1] if not live[0] else ready[1],
            "classify": self._classify,
        }

    def _point(self, snapshot: Json) -> Json:
        rates = {label: self._rate("labels_total", label=label) for label in snapshot["labels"]}
        return {
            "at": snapshot["at"],
            "texts_per_second": snapshot["texts_per_second"],
            "labels": rates,
            "latency": snapshot["latency"],
            "lag": snapshot["lag"]["records"],
            "dead_letters": self._rate(_DEAD),
        }


def _totals(new: Reading) -> Json:
    names = ("consumed", "published", "dead_lettered")
    return {name: new.total(f"records_{name}_total") for name in names} | {
        "in_flight": new.total("inflight_records"),
        "in_flight_bytes": new.total("inflight_bytes"),
        "truncated": new.total("truncated_total"),
        "cached": new.total("cache_hits_total"),
        "restarts": new.total("process_restarts_total"),
    }


def _top_labels(labels: dict[str, float]) -> dict[str, float]:
    """Return the most frequent labels, sorted by name; a model may have thousands."""
    top = sorted(labels, key=lambda label: -labels[label])[:_LABELS]
    return {label: labels[label] for label in sorted(top)}


def _latency(old: Reading, new: Reading) -> Json:
    buckets = between(old.buckets("end_to_end_seconds"), new.buckets("end_to_end_seconds"))
    return {f"p{share}": quantile(buckets, share / 100) for share in (50, 95, 99)}


def _lag(new: Reading) -> Json:
    partitions: list[Json] = [
        {"topic": labels["topic"], "partition": int(labels["partition"]), "records": value}
        for labels, value in new.series("offset_lag")
    ]
    worst = sorted(partitions, key=lambda row: -row["records"])[:_PARTITIONS]
    return {
        "records": sum(row["records"] for row in partitions),
        "seconds": new.total("time_lag_seconds"),
        "partitions": sorted(worst, key=lambda row: (row["topic"], row["partition"])),
        "left_out": len(partitions) - len(worst),
    }


def _stages(window: tuple[float, Reading], now: float, new: Reading) -> list[Json]:
    """Return each stage's mean seconds for a micro-batch, and its busy share of the window."""
    then, old = window
    busy = {labels["stage"]: value for labels, value in new.series("stage_busy_seconds_total")}
    stages = []
    for stage in STAGES:
        busy_seconds = busy.get(stage, 0.0) - old.total("stage_busy_seconds_total", stage=stage)
        stages.append(
            {
                "name": stage,
                "seconds": _mean(old, new, "stage_seconds", stage=stage),
                "busy": busy_seconds / (now - then) if stage in busy and now > then else None,
            }
        )
    return stages


def _batches(old: Reading, new: Reading) -> Json:
    return {
        "records": _mean(old, new, "batch_records"),
        "tokens": _mean(old, new, "batch_tokens"),
        "tokens_at_most": new.total("forward_tokens"),
        "padding": _mean(old, new, "padding_ratio"),
        "closed_by": new.by("micro_batches_total", "trigger"),
    }


def _mean(old: Reading, new: Reading, histogram: str, **where: str) -> float | None:
    count, total = (
        new.total(f"{histogram}_{part}", **where) - old.total(f"{histogram}_{part}", **where)
        for part in ("count", "sum")
    )
    return total / count if count else None


def _drift(new: Reading) -> list[Json]:
    indices = ((of, new.total(f"{of}_drift")) for of in ("label", "confidence"))
    return [{"of": of, "index": index, "reading": reading(index)} for of, index in indices]


def _per_bucket(buckets: Buckets) -> list[tuple[float, float]]:
    """Turn cumulative counts into one count a bucket; no probability is in the last, above 1."""
    below = 0.0
    counts = []
    for bound, cumulative in buckets[:-1]:
        counts.append((bound, cumulative - below))
        below = cumulative
    return counts
