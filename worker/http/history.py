"""Keeps what the worker did: a reading of its metrics every second, whether or not anybody looks.

Owns: the readings of the last 30 seconds, and two rings: 15 minutes of one row a second, and 24
    hours of one row every 10 seconds.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.

Memory is bounded: a row has 8 bytes for its time and 4 for each number, so the 9,540 rows of both
rings take 0.4 MB with two labels and 1.3 MB with the most label columns (24); the readings take
another 0.9 MB at most. A reading costs 1.4 ms of CPU time with 28 labels, and 2.8 ms with 1,000 in
the mean of five, of which only one reads the counters of the labels.

A longer interval is made from a shorter one: a rate becomes the mean of its rows, and lag and
quantiles become the highest, so that no peak is lost.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from worker.clock import Clock
from worker.http import figures
from worker.http.activity import Activity
from worker.http.reading import Reading, Window, sample_names
from worker.http.rings import Fold, Ring

Json = dict[str, Any]

RATE_WINDOW: Final = 5.0  # seconds
MEAN_WINDOW: Final = 30.0  # seconds, for means and quantiles: a p99 needs hundreds of observations
TOP_LABELS: Final = 12  # with a rate of their own in the charts
MANY_LABELS: Final = 100  # with more, their counters are read every few seconds only
LABELS_EVERY: Final = 5  # seconds; `RATE_WINDOW`, so that a rate is of two readings of the labels
LABEL_COLUMNS: Final = 24  # kept, so that a label that leaves the top for a while is not lost
FINE_ROWS: Final = 900  # 15 minutes
COARSE_ROWS: Final = 8_640  # 24 hours
_COARSE_S: Final = 10
_SLACK: Final = 0.5  # seconds; a reading may be late

# Name -> milliseconds that are shown, milliseconds of an interval; 1: every row as it is kept.
RANGES: Final = {"5m": (300_000, 1), "1h": (3_600_000, 1), "24h": (86_400_000, 60_000)}
_STEPS_S: Final = {"5m": 1, "1h": _COARSE_S, "24h": 60}

_RATES: Final = ("arriving", "labelled", "dead_letters")
_QUANTILES: Final = ("p50", "p95", "p99")
_LABEL: Final = "label "
_LABELS: Final = "labels_total"
_OF_LABELS: Final = ("labels", "model_labels")
_KEPT: Final = [f"{name}_total" for name in _OF_LABELS]
_FOLDS: Final[dict[str, Fold]] = dict.fromkeys(_RATES, fmean) | dict.fromkeys(
    (*_QUANTILES, "lag"), max
)


class MetricsSource(Protocol):
    """Provides the metrics: of one worker, or of a pool."""

    @property
    def registry(self) -> CollectorRegistry:
        """The registry behind /metrics and the page."""
        ...


class History:
    """Readings of a worker's metrics, from its start on.

    Args:
        metrics: are read once at construction, and then whenever `read` is called.
        clock: times and dates the readings.

    Attributes:
        activity: when outcomes were counted.
    """

    def __init__(self, metrics: MetricsSource, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        families = list(metrics.registry.collect())
        self._without_labels = sample_names(families, without=_OF_LABELS)
        self._readings = 0
        self._first = (clock.monotonic(), Reading(families))
        self._recent: deque[tuple[float, Reading]] = deque([self._first])
        self._fine, self._coarse = Ring(FINE_ROWS), Ring(COARSE_ROWS)
        self._coarse_at, self._coarse_ms = self._first[0], 0
        self._labels: set[str] = set()
        self._top: Sequence[str] = ()
        self.activity = Activity()

    @property
    def newest(self) -> Reading:
        """The newest reading."""
        return self._recent[-1][1]

    @property
    def bytes(self) -> int:
        """Memory of the numbers in the rings."""
        return self._fine.bytes + self._coarse.bytes

    def read(self) -> None:
        """Take a reading. Call it once a second."""
        now, at = self._clock.monotonic(), self._clock.wall_ms()
        self._recent.append((now, self._reading()))
        while len(self._recent) > 2 and now - self._recent[1][0] > MEAN_WINDOW - _SLACK:
            self._recent.popleft()
        self._choose_labels()
        row = self._row()
        self._fine.add(at, row)
        self.activity.note(at, self.last(0.0), self.last(MEAN_WINDOW))
        if now - self._coarse_at > _COARSE_S - _SLACK:
            self._coarse.add(*self._fine.fold(self._coarse_ms + 1, self._folds()))
            self._coarse_at, self._coarse_ms = now, at

    def whole(self) -> Window:
        """Return all that was counted since the start."""
        now, new = self._recent[-1]
        return Window(self._first[1], new, now - self._first[0])

    def point(self) -> Json | None:
        """Return the newest row, or None before the first."""
        if not len(self._fine):
            return None
        return list(self._points(self._fine, 0, 1))[-1]

    def minute(self) -> list[float | None]:
        """Return the texts labelled a second in each reading of the last minute."""
        return self._fine.newest("labelled", 60)

    def version(self, name: str) -> int:
        """Return a number that changes with the rows of a range."""
        return self._ring(name).added

    def points(self, name: str) -> Json:
        """Return the rows of a range of `RANGES`, oldest first, with the step between them."""
        shown, step = RANGES[name]
        ring = self._ring(name)
        since = self._clock.wall_ms() - shown
        return {
            "range": name,
            "step_s": _STEPS_S[name],
            "points": list(self._points(ring, since, step)),
        }

    def last(self, seconds: float) -> Window:
        """Return the last seconds, but at least what passed since the reading before."""
        now, new = self._recent[-1]
        others = list(self._recent)[:-1] or [self._first]
        moment = now - seconds - _SLACK
        then, old = next((entry for entry in others if entry[0] >= moment), others[-1])
        return Window(old, new, now - then)

    def lag_window(self) -> Window:
        """Return the seconds in which the lag was known, `MEAN_WINDOW` at most."""
        now, new = self._recent[-1]
        known = (entry for entry in self._recent if entry[1].series("offset_lag"))
        then, old = next(known, self._recent[-1])
        return Window(old, new, now - then)

    def _ring(self, name: str) -> Ring:
        return self._fine if name == "5m" else self._coarse

    def _reading(self) -> Reading:
        """Read all metrics, or all but the counters of many labels, which are most of the cost."""
        registry, previous = self._metrics.registry, self.newest
        self._readings += 1
        if sum(map(previous.size, _KEPT)) <= MANY_LABELS or self._readings % LABELS_EVERY == 0:
            return Reading(registry.collect(), previous)
        some = registry.restricted_registry(self._without_labels)
        return Reading(some.collect(), previous, kept=_KEPT)

    def _row(self) -> dict[str, float | None]:
        recent, window = self.last(RATE_WINDOW), self.last(MEAN_WINDOW)
        row: dict[str, float | None] = dict(figures.rates(recent))
        row |= figures.latency(window)
        row["lag"] = figures.lag(self.newest)["records"]
        old = recent.old.by(_LABELS, "label")
        for label, number in self.newest.by(_LABELS, "label").items():
            if label in self._labels and recent.seconds > 0:
                row[_LABEL + label] = (number - old.get(label, 0.0)) / recent.seconds
        return row

    def _choose_labels(self) -> None:
        """Give the most frequent labels a column, in place of labels that have become rare."""
        totals = {k: v for k, v in self.newest.by(_LABELS, "label").items() if v}
        self._top = sorted(heapq.nlargest(TOP_LABELS, sorted(totals), key=totals.__getitem__))
        for label in self._top:
            if label in self._labels:
                continue
            if len(self._labels) == LABEL_COLUMNS:
                self._forget(min(self._labels - set(self._top), key=totals.__getitem__))
            self._labels.add(label)
            for ring in (self._fine, self._coarse):
                ring.begin(_LABEL + label, 0.0)

    def _forget(self, label: str) -> None:
        self._labels.remove(label)
        for ring in (self._fine, self._coarse):
            ring.drop(_LABEL + label)

    def _folds(self) -> dict[str, Fold]:
        return _FOLDS | {_LABEL + label: fmean for label in self._labels}

    def _points(self, ring: Ring, since: int, step: int) -> Iterator[Json]:
        for at, row in ring.folded(since, step, self._folds()):
            labels = {label: row[_LABEL + label] or 0.0 for label in self._top}
            others = max(0.0, (row["labelled"] or 0.0) - sum(labels.values()))
            yield {
                "at": at,
                **{name: row[name] for name in _RATES},
                "labels": labels,
                "others": others,
                "latency": {name: row[name] for name in _QUANTILES},
                "lag": row["lag"],
            }
