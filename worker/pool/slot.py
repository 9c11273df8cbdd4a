"""Keeps one slot of a pool filled: restarts its process, until it has failed too often in a row.

Owns: the slot's process and its count of failures.
Thread: main steps; http reads the verdicts, each from one attribute that is replaced whole.
Must not import: kafka, torch, transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from worker.clock import Clock
from worker.core.faults import backoff
from worker.errors import Fatal, SettingsError
from worker.http.health import Verdict
from worker.http.notes import Json
from worker.logs import get_logger
from worker.pool.child import Child
from worker.settings import Settings

log = get_logger(__name__)

WRONG_SETTINGS: Final = 2  # the exit code
# Seconds of being ready after which a process counts as stable: its end starts a new count.
STABLE_AFTER: Final = 60.0
# Failures in a row, without a stable run between, that end the pool. The retries take under a
# minute, enough for faults that pass (a model hub's hiccup, memory that a sibling needs while it
# loads). A longer fault must be seen by the operator: a pool that retried for ever would hide a
# crash loop behind a healthy container.
MAX_FAILURES: Final = 5


class Slot:
    """Keeps one process running.

    Args:
        number: from 0.
        settings: those that its next process starts with.
        start: starts a process in this slot, with these settings.
        on_end: called when a process has ended and all its reports are read.
        on_restart: called when another process takes its place.
        silence: seconds without a report until the slot is no longer live.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        *,
        start: Callable[[Settings], Child],
        on_end: Callable[[], None],
        on_restart: Callable[[], None],
        silence: float,
        clock: Clock,
    ) -> None:
        self.number, self.settings = number, settings
        self._start, self._on_end, self._on_restart = start, on_end, on_restart
        self._silence, self._clock = silence, clock
        self.child: Child | None = None
        self._ready_since: float | None = None
        self._failures = 0
        self._start_at = clock.monotonic()

    def step(self) -> None:
        """Start, restart or watch the process.

        Raises:
            SettingsError: the process refuses its settings, as any other would.
            Fatal: the process has failed too often in a row.
        """
        now = self._clock.monotonic()
        if self.child is None:
            if now >= self._start_at:
                self._begin()
            return
        if self._ready_since is None and self.ready()[0]:
            self._ready_since = now
        code = self.child.poll()
        if code is not None:
            self._ended(self.child, code, now)

    def _begin(self) -> None:
        if self._failures:
            self._on_restart()
        self._ready_since = None
        self.child = self._start(self.settings)
        log.info("worker started", slot=self.number, pid=self.child.pid)

    def _ended(self, child: Child, code: int, now: float) -> None:
        self.child = None
        self._on_end()
        if code == WRONG_SETTINGS:
            raise SettingsError(f"slot {self.number}: {child.reason}")
        stable = self._ready_since is not None and now - self._ready_since >= STABLE_AFTER
        self._failures = 1 if stable else self._failures + 1
        if self._failures >= MAX_FAILURES:
            raise Fatal(
                f"slot {self.number} failed {self._failures} times in a row without being ready for "
                f"{STABLE_AFTER:g} s in between; last reason: {child.reason}"
            )
        delay = backoff(self._failures, base=0.5)
        self._start_at = now + delay
        log.warning(
            "worker ended",
            slot=self.number,
            reason=child.reason,
            restart_in_seconds=round(delay, 1),
        )

    def live(self) -> Verdict:
        """Return False for a hung process; one that has ended is live, as this slot restarts it."""
        child = self.child
        if child is None:
            return True, "waiting to restart"
        silence = self._clock.monotonic() - child.reported_at
        if silence > self._silence:
            return False, f"no report for {silence:.0f} s"
        return child.report.live if child.report else (True, "starting")

    def ready(self) -> Verdict:
        """Return True while the process takes records."""
        live, reason = self.live()
        child = self.child
        return child.report.ready if live and child and child.report else (False, reason)

    def describe(self) -> Json:
        """Return number, pid (None between two processes), health and reason, for the page."""
        child, live, ready = self.child, self.live(), self.ready()
        return {
            "slot": self.number,
            "pid": child.pid if child else None,
            "live": live[0],
            "ready": ready[0],
            "reason": live[1] if not live[0] else ready[1],
        }
