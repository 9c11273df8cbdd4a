"""Judges the worker's health: its state, its connection, and whether work moves.

Owns: state, outages and the `Holder`s of records; the log lines about stalls.
Thread: the poll thread writes, the HTTP thread reads. Each field is a single value that is replaced
    whole, which needs no lock; only the last stall that was logged has one.
Must not import: kafka, inference, cli.

A stall is logged by the first thread that notices it. The poll thread checks once a second; if that
is the thread that hangs, a probe of /livez notices.
"""

from __future__ import annotations

import threading

from worker.clock import Clock
from worker.core.records import RecordRef
from worker.core.state import State, check_transition
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.reachability import Reachability
from worker.runtime.stall import BrokerWait, Holder, StageProgress, Stall, stacks

log = get_logger(__name__)

_WORKING = frozenset({State.RUNNING, State.PAUSED})
_REMIND = 300.0  # seconds between two lines about topics that are missing


class Progress:
    """Liveness and readiness.

    The thread that moves the state is taken for the one that runs the main loop: its stack is
    logged if the loop hangs.

    Args:
        stall_timeout: seconds that a holder of records may take no step.

    Attributes:
        joined: True once the worker has been a member of its group. A later rebalance does not make
            it less ready.
        tokenise, infer, publish: records that each stage holds; written by the stages.
        acknowledgements, commits: what the main loop awaits.
        oldest: the oldest record in flight, and when it was polled, in seconds of the clock.
    """

    def __init__(self, stall_timeout: float, metrics: Metrics, clock: Clock) -> None:
        self._stall_timeout = stall_timeout
        self._metrics, self._clock = metrics, clock
        now = clock.monotonic()
        self.state = State.STARTING
        self.joined = False
        self.tokenise = StageProgress("tokenise", now)
        self.infer = StageProgress("infer", now)
        self.publish = StageProgress("publish", now)
        self.acknowledgements = BrokerWait(
            "the broker has not acknowledged the oldest of {} records"
        )
        self.commits = BrokerWait("the offsets of {} partitions have waited for their commit")
        self.oldest: tuple[RecordRef, float] | None = None
        self._main_thread: int | None = None
        self._last_round = self._since = now
        self._topics = Reachability(
            "waiting for topics", "the topics exist now", clock, grace=0, interval=_REMIND
        )
        self._broker = Reachability(
            "broker is unreachable, retrying", "broker is reachable again", clock
        )
        self._registry_away: str | None = None
        self._lock = threading.Lock()  # of the stall that was logged last
        self._logged_stall = ""
        metrics.live.set_function(lambda: self.live()[0])
        metrics.ready.set_function(lambda: self.ready()[0])

    @property
    def stages(self) -> tuple[StageProgress, StageProgress, StageProgress]:
        """The stages in the order of the data flow."""
        return self.tokenise, self.infer, self.publish

    def move(self, new: State) -> None:
        """Change the state. Idempotent."""
        self._main_thread = threading.get_ident()
        if new is not self.state:
            if not {new, self.state} <= _WORKING:  # pausing and resuming are not progress
                self._since = self._clock.monotonic()
            self.state = check_transition(self.state, new)
            self._metrics.state.set(int(new))

    def went_round(self) -> None:
        """Note a round of the main loop, or of the thread that replaces it in a rebalance."""
        self._last_round = self._clock.monotonic()

    def connection(self, *, up: bool, reason: str = "no connection is up") -> None:
        """Note whether a broker is connected; log an outage periodically."""
        if self._broker.note(None if up else reason):
            self._since = self._clock.monotonic()  # what waited gets its full time again

    def registry(self, away: str | None) -> None:
        """Note the schema registry's failure, which is None while it answers or is not needed."""
        self._registry_away = away

    def waits(self, reason: str | None, *, usual: bool = False) -> None:
        """Note which topics the worker waits for, or that they exist; log both, and a reminder.

        Args:
            reason: None if the topics exist.
            usual: True if it is no cause for a warning, as with a pattern that matches none yet.
        """
        self._topics.note(reason, usual=usual)

    @property
    def away(self) -> bool:
        """True while no broker has been connected for longer than a reconnect takes."""
        return self._broker.away

    def ready(self) -> tuple[bool, str]:
        """Return whether the worker takes part in its group, and a description."""
        if reason := self._broker.reason:
            return False, f"the broker is unreachable: {reason}"
        if self._registry_away:
            return False, f"the schema registry is away: {self._registry_away}"
        if self.state is State.RUNNING and not self.joined:
            return False, "joining the group"
        if reason := self._topics.reason:
            return False, f"waiting: {reason}"
        return self.state in _WORKING, self.state.name.lower()

    def live(self) -> tuple[bool, str]:
        """Return False if a restart could help, and a description.

        An unreachable broker or schema registry is not a stall: a restart would not bring it back,
        and would lose the loaded model. A worker that drains has a bound of its own,
        `shutdown_timeout`.
        """
        if self.state is State.FAILED:
            return False, "failed"
        watched = self.state in _WORKING and not self.away
        stall = self._stall() if watched else None
        self._log_change(stall)
        return stall is None, str(stall) if stall else self.state.name.lower()

    def _stall(self) -> Stall | None:
        seconds = self._seconds_since(self._last_round)
        if seconds > self._stall_timeout:
            # Judged first: the main loop updates the waits below, so their values are stale.
            main = (self._main_thread,)
            return Stall("the main loop has not completed a round", seconds, main, self._oldest())
        for holder in self._judged():
            seconds = self._seconds_since(holder.moved_at)
            if seconds > self._stall_timeout:
                threads = tuple(holder.threads())
                return Stall(holder.describe(), seconds, threads, self._oldest())
        return None

    def _judged(self) -> list[Holder]:
        """Return the holders whose last step counts: the last ones in the data flow."""
        waits: list[Holder] = [w for w in (self.commits, self.acknowledgements) if w.held > 0]
        stages: list[Holder] = [stage for stage in reversed(self.stages) if stage.held > 0]
        return waits or stages[:1]

    def _oldest(self) -> str:
        if self.oldest is None:
            return ""
        (topic, partition, offset, _), polled_at = self.oldest
        age = self._clock.monotonic() - polled_at
        return (
            f"; the oldest record is {topic}[{partition}] offset {offset}, polled {age:.0f} s ago"
        )

    def _seconds_since(self, moved_at: float) -> float:
        return self._clock.monotonic() - max(moved_at, self._since)

    def _log_change(self, stall: Stall | None) -> None:
        """Log a stall with its stacks once, and its end."""
        holder = stall.holder if stall else ""
        with self._lock:
            before, self._logged_stall = self._logged_stall, holder
        if stall and not before:
            log.error("stalled", reason=str(stall), threads=stacks(stall.threads))
        elif before and not stall:
            log.info("stall ended")
