"""Runs the parent of a pool: starts the slots, watches them, and stops them together.

Owns: the slots and the combined metrics.
Thread: main runs; http asks for health, posts and answers.
Must not import: kafka, torch, transformers.
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
from worker.http.notes import Notes, merged
from worker.logs import get_logger
from worker.metrics import PoolMetrics
from worker.pool.ask import AskRouter
from worker.pool.child import Child
from worker.pool.memory_kills import MemoryKills
from worker.pool.model_round import ModelRound
from worker.pool.shares import slot_settings
from worker.pool.slot import Slot
from worker.pool.totals import Totals
from worker.settings import Settings, child_environment

log = get_logger(__name__)

_POLL_INTERVAL: Final = 0.1  # seconds between polls of the processes
# Seconds beyond `shutdown_timeout`, which a worker itself observes: for one that is still loading,
# and for the interpreter's exit.
_MARGIN: Final = 10.0
# A worker catches SIGTERM and exits 0. If SIGTERM kills it, it had not yet installed its handler
# and read no record; or it was in the interpreter's exit, after its last report.
_CLEAN: Final = (0, -signal.SIGTERM)


class Pool:
    """A pool of `processes` workers, while `run` runs.

    Args:
        program: the command line of a worker.
        stop: set from a signal handler; ends `run`.

    Attributes:
        totals: the combined metrics.
        ask_router: answers questions of the page.
        model: changes the model of every process.
    """

    def __init__(
        self, settings: Settings, program: Sequence[str], clock: Clock, stop: threading.Event
    ) -> None:
        self._settings, self._program, self._clock, self._stop = settings, program, clock, stop
        self._metrics = PoolMetrics()
        self.totals = Totals(self._metrics)
        self._kills = MemoryKills()
        self._slots = [self._slot(number) for number in range(settings.processes)]
        self.ask_router = AskRouter(self._slots)
        self.model = ModelRound(self._slots, self._metrics, clock)
        self._metrics.live.set_function(lambda: self.live()[0])

    def _slot(self, number: int) -> Slot:
        environ = child_environment()
        page = self._settings.http.enabled
        return Slot(
            number,
            self._settings,
            start=lambda settings: Child(
                self._program,
                {"slot": number, "settings": slot_settings(settings, number), "page": page},
                environ,
                self._clock,
                lambda report: self.totals.note(number, report.metrics),
                self._kills,
            ),
            on_end=functools.partial(self.totals.retire, number),
            on_restart=self._metrics.restarts.inc,
            silence=self._settings.stall_timeout,
            clock=self._clock,
        )

    def run(self) -> None:
        """Keep all workers running until `stop` is set; then let each drain and end.

        Raises:
            SettingsError: a worker refuses its settings.
            Fatal: a worker failed too often in a row, or did not stop cleanly.
        """
        try:
            self._watch()
        except BaseException:
            log.info("stopping the other workers")
            for reason in self._stop_all():
                log.warning("worker did not stop cleanly", reason=reason)
            raise
        if unclean := self._stop_all():
            raise Fatal("; ".join(unclean))

    def kill(self) -> None:
        """Kill all processes. Safe in a signal handler."""
        for slot in self._slots:
            if child := slot.child:
                child.kill()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for slot in self._slots:
                slot.step()
            self.model.step()
            self._stop.wait(_POLL_INTERVAL)

    def _stop_all(self) -> list[str]:
        """Stop all workers; return a reason for each that did not stop cleanly."""
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
            self._clock.sleep(_POLL_INTERVAL)
        return [
            f"slot {slot.number}: {child.reason}"
            for slot, child in running
            if codes[slot.number] not in _CLEAN or child.fault
        ]

    # -- health ----------------------------------------------------------------------------------

    def live(self) -> Verdict:
        """Return False if one slot is not live: a platform can restart only the whole pool."""
        verdicts = [(slot.number, *slot.live()) for slot in self._slots]
        shown = [verdict for verdict in verdicts if not verdict[1]] or verdicts
        return shown == verdicts and all(live for _, live, _ in verdicts), _listed(shown)

    def ready(self) -> Verdict:
        """Return True as soon as one slot is ready: the pool takes records.

        Readiness routes no traffic here. A rollout or a disruption budget waits for it to learn
        whether this release works, and must not be held up by slots that are a few seconds behind
        or by one that restarts. A slot that never becomes ready ends the pool.
        """
        verdicts = [(slot.number, *slot.ready()) for slot in self._slots]
        unready = [verdict for verdict in verdicts if not verdict[1]]
        ready = len(verdicts) - len(unready)
        summary = f"{ready} of {len(verdicts)} ready"
        return ready > 0, ", ".join(filter(None, [summary, _listed(unready)]))

    # -- the page --------------------------------------------------------------------------------

    def notes(self) -> Notes:
        """Return what all processes tell the page."""
        children = [slot.child for slot in self._slots]
        reports = [child.report for child in children if child is not None]
        notes = (report.notes for report in reports if report is not None)
        return merged(notes, [slot.describe() for slot in self._slots])


def _listed(verdicts: Sequence[tuple[int, bool, str]]) -> str:
    return ", ".join(f"slot {number}: {reason}" for number, _, reason in verdicts)
