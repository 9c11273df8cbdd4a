"""Knows when the worker had something to do, so that its page has numbers after a run.

Owns: the first and the last outcome, the seconds with outcomes, and the means of the last of them.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from typing import Any

from worker.http import figures
from worker.http.reading import Window

Json = dict[str, Any]


class Activity:
    """The outcomes since the start, in readings a second apart.

    Attributes:
        window: the seconds up to the last outcome: figures of it stay after the run has ended.
        last_at: when outcomes were last counted, milliseconds; None before the first.
    """

    def __init__(self) -> None:
        self.window: Window | None = None
        self.first_at: int | None = None
        self.last_at: int | None = None
        self._busy_s = 0.0
        self._highest = 0.0

    def note(self, at: int, last: Window, window: Window) -> None:
        """Take in a reading.

        Args:
            at: its time, milliseconds.
            last: since the reading before.
            window: the seconds over which means are taken.
        """
        if not any(last.gained(name) for name in figures.OUTCOMES):
            return
        self.window, self.last_at = window, at
        self.first_at = at if self.first_at is None else self.first_at
        self._busy_s += last.seconds
        self._highest = max(self._highest, last.rate(figures.PUBLISHED) or 0.0)

    def run(self, whole: Window) -> Json:
        """Return totals and means since the start.

        Returns:
            first_at, last_at: milliseconds, None before the first outcome. busy_s: seconds in which
            outcomes were counted. labelled: texts a second, over these seconds. highest: most texts
            a second, between two readings; never below `labelled`. latency: quantiles over all
            records.
        """
        labelled = whole.gained(figures.PUBLISHED)
        return {
            "first_at": self.first_at,
            "last_at": self.last_at,
            "busy_s": round(self._busy_s, 1),
            "labelled": labelled / self._busy_s if self._busy_s else None,
            "highest": self._highest if self._busy_s else None,
            "latency": figures.latency(whole),
        }
