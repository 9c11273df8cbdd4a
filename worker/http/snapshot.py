"""Builds the page's snapshot: the worker at one moment, with rates over the last seconds.

Owns: the readings of the last 30 seconds, and five minutes of points for the charts.
Thread: http, on the event loop, once a second while there are readers.
Must not import: kafka, torch, worker.runtime.

All figures come from the registry behind /metrics, so that page and metrics agree; `notes` and
`about` add what is no number.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from worker.clock import Clock
from worker.core.state import State
from worker.http import figures
from worker.http.about import About
from worker.http.health import Health
from worker.http.notes import Notes, NotesSource
from worker.http.reading import Reading

Json = dict[str, Any]

RATE_WINDOW: Final = 5.0  # seconds
MEAN_WINDOW: Final = 30.0  # seconds, for means and quantiles: a p99 needs hundreds of observations
KEPT: Final = 300  # points of the charts: five minutes
TOP_LABELS: Final = 12  # with a rate of their own in the charts


class MetricsSource(Protocol):
    """Provides the metrics: of one worker, or of a pool."""

    @property
    def registry(self) -> CollectorRegistry:
        """The registry behind /metrics and the page."""
        ...


class SnapshotBuilder:
    """Takes readings and builds a snapshot from each.

    Args:
        metrics, health, notes, about: what is shown.
        clock: dates the snapshots.
        classify: `http.classify`, shown so that the page offers its form.

    Attributes:
        points: the charts' points, oldest first.
    """

    def __init__(
        self,
        metrics: MetricsSource,
        health: Health,
        notes: NotesSource,
        about: About,
        clock: Clock,
        *,
        classify: bool = True,
    ) -> None:
        self._metrics, self._health, self._notes = metrics, health, notes
        self._about, self._clock, self._classify = about, clock, classify
        self._readings: deque[tuple[float, Reading]] = deque()
        self.points: deque[Json] = deque(maxlen=KEPT)

    def take(self) -> Json:
        """Build the current snapshot, and keep its point for the charts."""
        now, new = self._clock.monotonic(), Reading(self._metrics.registry.collect())
        while self._readings and now - self._readings[0][0] > MEAN_WINDOW + 0.5:
            self._readings.popleft()
        self._readings.append((now, new))
        then, old = self._since(now - MEAN_WINDOW)
        notes, about = self._notes.notes(), self._about
        labels, others = figures.labels(new)
        stages = figures.stages(old, new, now - then)
        rates = {
            "arriving": None,
            "labelled": self._rate("records_published_total"),
            "dead_letters": self._rate(figures.DEAD),
        }
        snapshot: Json = {
            "at": self._clock.wall_ms(),
            "identity": about.identity,
            "worker": self._worker(new),
            "totals": figures.totals(new),
            "labels": labels,
            "others": others,
            "rates": rates,
            "texts_per_second": rates["labelled"],
            "latency": figures.latency(old, new),
            "lag": figures.lag(new) | {"until_zero_s": None},
            "stages": stages,
            "shares": figures.shares(stages),
            "batches": figures.batches(old, new),
            "dead_letters": self._dead_letters(new, notes),
            "rebalances": new.by("rebalances_total", "kind"),
            "drift": figures.drift(new),
            "confidence": figures.histogram(new.buckets("confidence")),
            "posts": notes.posts,
            "settings": about.settings,
            "links": about.links,
            "models": [],
            "shadow": None,
        }
        point = self._point(snapshot)
        self.points.append(point)
        return snapshot | {"point": point}

    def _dead_letters(self, new: Reading, notes: Notes) -> Json:
        counts = new.by(figures.DEAD, "reason")
        return {
            "by_reason": {reason: number for reason, number in counts.items() if number},
            "rate": self._rate(figures.DEAD),
            "latest": notes.dead_letters,
            "command": self._about.replay,
            "command_needs": self._about.replay_needs,
        }

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
        totals = snapshot["labels"]
        top = sorted(sorted(totals, key=lambda label: -totals[label])[:TOP_LABELS])
        rates = {label: self._rate("labels_total", label=label) for label in top}
        labelled = snapshot["rates"]["labelled"]
        return {
            "at": snapshot["at"],
            "texts_per_second": labelled,
            **snapshot["rates"],
            "labels": rates,
            "others": None
            if labelled is None
            else max(0.0, labelled - sum(rate or 0.0 for rate in rates.values())),
            "latency": snapshot["latency"],
            "lag": snapshot["lag"]["records"],
        }
