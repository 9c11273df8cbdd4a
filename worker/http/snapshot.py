"""What the page shows: the worker at one moment, and its last minutes.

Runs on the HTTP thread's loop, once a second while somebody watches. All numbers come out of the
registry that /metrics shows, so that they are the same. Imports the ground floor, core and
`reading`.
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
from worker.metrics import STAGES

Shown = dict[str, Any]

RATE_OVER: Final = 5.0  # seconds
SPREAD_OVER: Final = 30.0  # seconds; a p99 wants some hundred observations
KEPT: Final = 300  # points of the charts: five minutes
_PARTITIONS: Final = 12  # with the most lag
_LABELS: Final = 8  # the most frequent
_DEAD: Final = "records_dead_lettered_total"


class MetricsSource(Protocol):
    """Whoever has metrics to show."""

    @property
    def registry(self) -> CollectorRegistry:
        """For /metrics and the page."""
        ...


class Snapshot:
    """Takes readings, and tells what they mean; `box` says that the page may ask the model."""

    def __init__(
        self,
        metrics: MetricsSource,
        health: Health,
        posted: PostSource,
        clock: Clock,
        *,
        box: bool = True,
    ) -> None:
        self._metrics, self._health, self._posted = metrics, health, posted
        self._clock, self._box = clock, box
        self._readings: deque[tuple[float, Reading]] = deque()
        self.points: deque[Shown] = deque(maxlen=KEPT)

    def take(self) -> Shown:
        """What is true now; a point of the charts is kept."""
        now, new = self._clock.monotonic(), Reading(self._metrics.registry.collect())
        while self._readings and now - self._readings[0][0] > SPREAD_OVER + 0.5:
            self._readings.popleft()
        self._readings.append((now, new))
        spread = self._since(now - SPREAD_OVER)
        shown = {
            "at": self._clock.wall_ms(),
            "worker": self._worker(new),
            "totals": _totals(new),
            "labels": _most(new.by("labels_total", "label")),
            "texts_per_second": self._rate("records_published_total"),
            "latency": _latency(spread[1], new),
            "lag": _lag(new),
            "stages": _stages(spread, now, new),
            "batches": _batches(spread[1], new),
            "dead_letters": {k: v for k, v in new.by(_DEAD, "reason").items() if v},
            "rebalances": new.by("rebalances_total", "kind"),
            "drift": _drift(new),
            "confidence": _separate(new.buckets("confidence")),
            "posts": self._posted.latest(),
        }
        point = self._point(shown)
        self.points.append(point)
        return shown | {"point": point}

    def _since(self, moment: float) -> tuple[float, Reading]:
        """The oldest reading since then; the newest, if there is but that."""
        return next((one for one in self._readings if one[0] >= moment - 0.5), self._readings[-1])

    def _rate(self, name: str, **where: str) -> float | None:
        now, new = self._readings[-1]
        then, old = self._since(now - RATE_OVER)
        if then >= now:
            return None
        return (new.total(name, **where) - old.total(name, **where)) / (now - then)

    def _worker(self, new: Reading) -> Shown:
        live, ready = self._health.live(), self._health.ready()
        return {
            "version": new.facts("build_info").get("version", ""),
            "model": new.facts("model_info"),
            "states": sorted(State(int(value)).name.lower() for _, value in new.series("state")),
            "live": live[0],
            "ready": ready[0],
            "words": live[1] if not live[0] else ready[1],
            "box": self._box,
        }

    def _point(self, shown: Shown) -> Shown:
        rates = {label: self._rate("labels_total", label=label) for label in shown["labels"]}
        return {
            "at": shown["at"],
            "texts_per_second": shown["texts_per_second"],
            "labels": rates,
            "latency": shown["latency"],
            "lag": shown["lag"]["records"],
            "dead_letters": self._rate(_DEAD),
        }


def _totals(new: Reading) -> Shown:
    counted = ("consumed", "published", "dead_lettered")
    return {name: new.total(f"records_{name}_total") for name in counted} | {
        "in_flight": new.total("inflight_records"),
        "in_flight_bytes": new.total("inflight_bytes"),
        "truncated": new.total("truncated_total"),
        "cached": new.total("cache_hits_total"),
        "restarts": new.total("process_restarts_total"),
    }


def _most(labels: dict[str, float]) -> dict[str, float]:
    """The most frequent labels, by their names; a model may have thousands."""
    top = sorted(labels, key=lambda label: -labels[label])[:_LABELS]
    return {label: labels[label] for label in sorted(top)}


def _latency(old: Reading, new: Reading) -> Shown:
    buckets = between(old.buckets("end_to_end_seconds"), new.buckets("end_to_end_seconds"))
    return {f"p{share}": quantile(buckets, share / 100) for share in (50, 95, 99)}


def _lag(new: Reading) -> Shown:
    partitions: list[Shown] = [
        {"topic": labels["topic"], "partition": int(labels["partition"]), "records": value}
        for labels, value in new.series("offset_lag")
    ]
    worst = sorted(partitions, key=lambda one: -one["records"])[:_PARTITIONS]
    return {
        "records": sum(one["records"] for one in partitions),
        "seconds": new.total("time_lag_seconds"),
        "partitions": sorted(worst, key=lambda one: (one["topic"], one["partition"])),
        "left_out": len(partitions) - len(worst),
    }


def _stages(spread: tuple[float, Reading], now: float, new: Reading) -> list[Shown]:
    """Of each stage, seconds for a micro-batch, and the share of the time that it worked."""
    then, old = spread
    busy = {labels["stage"]: value for labels, value in new.series("stage_busy_seconds_total")}
    found = []
    for stage in STAGES:
        worked = busy.get(stage, 0.0) - old.total("stage_busy_seconds_total", stage=stage)
        found.append(
            {
                "name": stage,
                "seconds": _mean(old, new, "stage_seconds", stage=stage),
                "busy": worked / (now - then) if stage in busy and now > then else None,
            }
        )
    return found


def _batches(old: Reading, new: Reading) -> Shown:
    return {
        "records": _mean(old, new, "batch_records"),
        "tokens": _mean(old, new, "batch_tokens"),
        "tokens_at_most": new.total("forward_tokens"),
        "padding": _mean(old, new, "padding_ratio"),
        "closed_by": new.by("micro_batches_total", "trigger"),
    }


def _mean(old: Reading, new: Reading, histogram: str, **where: str) -> float | None:
    number, total = (
        new.total(f"{histogram}_{part}", **where) - old.total(f"{histogram}_{part}", **where)
        for part in ("count", "sum")
    )
    return total / number if number else None


def _drift(new: Reading) -> list[Shown]:
    found = ((of, new.total(f"{of}_drift")) for of in ("label", "confidence"))
    return [{"of": of, "index": index, "reading": reading(index)} for of, index in found]


def _separate(buckets: Buckets) -> list[tuple[float, float]]:
    """What lies in each bucket alone; the last one, to infinity, has nothing in it here."""
    below = 0.0
    found = []
    for bound, number in buckets[:-1]:
        found.append((bound, number - below))
        below = number
    return found
