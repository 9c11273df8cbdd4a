"""A slot of a pool: one process after the other, and when there shall be no more.

The parent's main thread steps; the HTTP thread reads the verdicts, each out of one plain value that
is replaced whole. Imports core and the ground floor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from worker.clock import Clock
from worker.core.faults import backoff
from worker.errors import Fatal, SettingsError
from worker.http.health import Verdict
from worker.logs import get_logger
from worker.pool.child import Child

log = get_logger(__name__)

WRONG_SETTINGS: Final = 2  # the exit code
# A process that was ready for so long, in seconds, ran well: what ends it then is something new.
RAN_WELL: Final = 60.0
# Ends in a row, without having run well between, after which the pool ends as well. Under a minute
# of tries outlasts what passes by itself (a hub that hiccups, memory that a sibling needs while it
# loads). What lasts longer is for whoever runs the pool to see: a pool that went on for ever would
# hide its crash loop behind a healthy container.
GIVE_UP_AT: Final = 5


class Slot:
    """Keeps one process running.

    Args:
        number: from 0.
        start: starts a process in this slot.
        on_end: called when it has ended and all its reports are read.
        on_restart: called when another one takes its place.
        silence: seconds without a report until the slot is red.
    """

    def __init__(
        self,
        number: int,
        *,
        start: Callable[[], Child],
        on_end: Callable[[], None],
        on_restart: Callable[[], None],
        silence: float,
        clock: Clock,
    ) -> None:
        self.number = number
        self._start, self._on_end, self._on_restart = start, on_end, on_restart
        self._silence, self._clock = silence, clock
        self.child: Child | None = None
        self._ready_since: float | None = None
        self._failures = 0
        self._start_at = clock.monotonic()

    def step(self) -> None:
        """Start, restart or watch the process.

        Raises:
            SettingsError: it refuses its settings; another one would too.
            Fatal: it ended too often in a row.
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
        self.child = self._start()
        log.info("worker started", slot=self.number, pid=self.child.pid)

    def _ended(self, child: Child, code: int, now: float) -> None:
        self.child = None
        self._on_end()
        if code == WRONG_SETTINGS:
            raise SettingsError(f"slot {self.number}: {child.reason}")
        ran_well = self._ready_since is not None and now - self._ready_since >= RAN_WELL
        self._failures = 1 if ran_well else self._failures + 1
        if self._failures >= GIVE_UP_AT:
            raise Fatal(
                f"slot {self.number} ended {self._failures} times in a row within {RAN_WELL:g} s "
                f"of being ready, or before; the last time: {child.reason}"
            )
        delay = backoff(self._failures, base=0.5)
        self._start_at = now + delay
        log.warning("worker ended", slot=self.number, reason=child.reason, again_in=round(delay, 1))

    def live(self) -> Verdict:
        """Red where only the platform can help; a process that ended is helped from here."""
        child = self.child
        if child is None:
            return True, "waits to be started again"
        silent = self._clock.monotonic() - child.heard_at
        if silent > self._silence:
            return False, f"has not reported for {silent:.0f} s"
        return child.report.live if child.report else (True, "starting")

    def ready(self) -> Verdict:
        """Whether its process takes part in the group."""
        good, words = self.live()
        child = self.child
        return child.report.ready if good and child and child.report else (False, words)
