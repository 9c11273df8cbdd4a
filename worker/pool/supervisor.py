"""The parent of a pool: starts its slots, watches them, ends them together.

Runs on the parent's main thread; the HTTP thread asks it for health. Imports the ground floor.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Sequence
from typing import Final

from worker.clock import Clock
from worker.errors import Fatal
from worker.http.health import Verdict
from worker.http.recent_posts import KEPT, Post
from worker.logs import get_logger
from worker.metrics import PoolMetrics
from worker.pool.ask import PoolAskQueue
from worker.pool.child import Child
from worker.pool.shares import slot_environment, slot_settings
from worker.pool.slot import Slot
from worker.pool.totals import Totals
from worker.settings import Settings

log = get_logger(__name__)

_GLANCE: Final = 0.1  # seconds between looks at the processes
# Seconds beyond `shutdown_timeout`, which a worker keeps by itself: for one that is still loading,
# and for the interpreter's own end.
_MARGIN: Final = 10.0
# A worker catches SIGTERM, and exits 0. One that dies of it had not come so far, and read nothing;
# or it was through, in the interpreter's own end, and had told what there was to tell.
_CLEAN: Final = (0, -signal.SIGTERM)


class Pool:
    """`processes` workers, for as long as `run` runs.

    Args:
        program: how a worker is started.
        stop: set from a signal handler; ends `run`.

    Attributes:
        totals: the metrics of all.
        box: asks one of them.
    """

    def __init__(
        self, settings: Settings, program: Sequence[str], clock: Clock, stop: threading.Event
    ) -> None:
        self._settings, self._program, self._clock, self._stop = settings, program, clock, stop
        self._metrics = PoolMetrics()
        self.totals = Totals(self._metrics)
        self._slots = [self._slot(number) for number in range(settings.processes)]
        self.box = PoolAskQueue(self._slots)
        self._metrics.live.set_function(lambda: self.live()[0])

    def _slot(self, number: int) -> Slot:
        given = slot_settings(self._settings, number)
        order = {"slot": number, "settings": given, "page": self._settings.http.enabled}
        environ = slot_environment(given)
        return Slot(
            number,
            start=lambda: Child(
                self._program,
                order,
                environ,
                self._clock,
                lambda report: self.totals.note(number, report.metrics),
            ),
            on_end=functools.partial(self.totals.retire, number),
            on_restart=self._metrics.restarts.inc,
            silence=self._settings.stall_timeout,
            clock=self._clock,
        )

    def run(self) -> None:
        """Keep all running until told to stop; then end them, and let each drain.

        Raises:
            SettingsError: a worker refuses its settings.
            Fatal: one ends again and again, or could not be ended cleanly.
        """
        try:
            self._watch()
        except BaseException:
            log.info("stopping the other workers")
            for words in self._end():
                log.warning("a worker did not end cleanly", reason=words)
            raise
        if unclean := self._end():
            raise Fatal("; ".join(unclean))

    def kill(self) -> None:
        """End all at once. Safe in a signal handler."""
        for slot in self._slots:
            if child := slot.child:
                child.kill()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for slot in self._slots:
                slot.step()
            self._stop.wait(_GLANCE)

    def _end(self) -> list[str]:
        """End all; says who did not end cleanly, and why."""
        running = [(slot, slot.child) for slot in self._slots if slot.child]
        for _, child in running:
            child.terminate()
        deadline = self._clock.monotonic() + self._settings.shutdown_timeout + _MARGIN
        codes: dict[int, int] = {}
        killed = False
        while len(codes) < len(running):
            for slot, child in running:
                if (code := child.poll()) is not None:
                    codes[slot.number] = code
            if not killed and self._clock.monotonic() >= deadline:
                killed = True
                self.kill()
            self._clock.sleep(_GLANCE)
        return [
            f"slot {slot.number}: {child.reason}"
            for slot, child in running
            if codes[slot.number] not in _CLEAN or child.fault
        ]

    # -- health ----------------------------------------------------------------------------------

    def live(self) -> Verdict:
        """Red as soon as one is: there is no smaller thing that the platform could restart."""
        verdicts = [(slot.number, *slot.live()) for slot in self._slots]
        shown = [one for one in verdicts if not one[1]] or verdicts
        return shown == verdicts and all(good for _, good, _ in verdicts), _listed(shown)

    def ready(self) -> Verdict:
        """Green as soon as one is: records are taken.

        No traffic is routed by it. What waits for it, a rollout or a disruption budget, wants to
        know whether this release works; that others are a few seconds behind, or that one of many
        is started anew, shall not hold it up. A slot that never comes up ends the pool.
        """
        verdicts = [(slot.number, *slot.ready()) for slot in self._slots]
        missing = [one for one in verdicts if not one[1]]
        up = len(verdicts) - len(missing)
        counted = f"{up} of {len(verdicts)} ready"
        return up > 0, ", ".join(filter(None, [counted, _listed(missing)]))

    # -- the page --------------------------------------------------------------------------------

    def latest(self) -> Sequence[Post]:
        """The last posts of all processes, the newest first."""
        children = [slot.child for slot in self._slots]
        reports = [child.report for child in children if child is not None]
        posts = [post for report in reports if report is not None for post in report.posts]
        return sorted(posts, key=lambda post: -post["at"])[:KEPT]


def _listed(verdicts: Sequence[tuple[int, bool, str]]) -> str:
    return ", ".join(f"slot {number}: {words}" for number, _, words in verdicts)
