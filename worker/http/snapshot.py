"""Builds the page's snapshot: the worker at one moment, out of the history.

Owns: nothing.
Thread: http, on the event loop, once a second while there are readers.
Must not import: kafka, torch, worker.runtime.

All figures come from the registry behind /metrics, so that page and metrics agree; `notes` and
`about` add what is no number. Means and quantiles are of the seconds up to the last outcome, so
they stay after a run; `last_at` tells how old they are. Rates are those of the last seconds.
"""

from __future__ import annotations

from typing import Any

from worker.clock import Clock
from worker.core.state import State
from worker.http import figures
from worker.http.about import About
from worker.http.each_model import each_model
from worker.http.health import Health
from worker.http.history import MEAN_WINDOW, RATE_WINDOW, History
from worker.http.model import ModelRequests
from worker.http.notes import NotesSource
from worker.http.reading import Reading
from worker.http.routing import routes_member
from worker.http.shadow import shadow_member

Json = dict[str, Any]


class SnapshotBuilder:
    """Builds a snapshot of the newest reading.

    Args:
        history, health, notes, about: what is shown.
        clock: dates the snapshots.
        classify: `http.classify`, shown so that the page offers its form.
        model: knows the last change of the model; None if it can't change.
    """

    def __init__(
        self,
        history: History,
        health: Health,
        notes: NotesSource,
        about: About,
        clock: Clock,
        *,
        classify: bool = True,
        model: ModelRequests | None = None,
    ) -> None:
        self._history, self._health, self._notes = history, health, notes
        self._about, self._clock = about, clock
        self._classify, self._model = classify, model

    def build(self) -> Json:
        """Return the snapshot, with the newest point of the charts."""
        history, about, notes = self._history, self._about, self._notes.notes()
        new, recent = history.newest, history.last(RATE_WINDOW)
        rates = figures.rates(recent)
        labels, others = figures.labels(new)
        return {
            "at": self._clock.wall_ms(),
            "identity": about.identity,
            "worker": self._worker(new),
            "workers": notes.workers,
            "totals": figures.totals(new),
            "labels": labels,
            "others": others,
            "rates": rates,
            "lag": figures.lag(new) | figures.outlook(history.lag_window()),
            "rebalances": new.by("rebalances_total", "kind"),
            "drift": figures.drift(new),
            "confidence": figures.histogram(new.buckets("confidence")),
            "posts": notes.posts,
            "dead_letters": self._dead_letters(new, rates["dead_letters"], notes.dead_letters),
            "settings": about.in_force(self._model.settings if self._model else None),
            "links": about.links,
            "models": notes.models,
            "each_model": each_model(history.whole(), history.last(MEAN_WINDOW)),
            "routes": routes_member(new),
            "model_change": self._model.state()["change"] if self._model else None,
            "shadow": shadow_member(new),
            "run": history.activity.run(history.whole()),
            "last_at": history.activity.last_at,
            "minute": history.minute(),
            "point": history.point(),
        } | self._means()

    def _means(self) -> Json:
        window = self._history.activity.window or self._history.last(MEAN_WINDOW)
        stages = figures.stages(self._history.last(MEAN_WINDOW), window)
        return {
            "latency": figures.latency(window),
            "stages": stages,
            "shares": figures.shares(stages),
            "batches": figures.batches(window),
        }

    def _dead_letters(self, new: Reading, rate: float | None, latest: Any) -> Json:
        counts = new.by(figures.DEAD, "reason")
        return {
            "by_reason": {reason: number for reason, number in counts.items() if number},
            "rate": rate,
            "latest": latest,
            "command": self._about.replay,
            "command_needs": self._about.replay_needs,
        }

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
