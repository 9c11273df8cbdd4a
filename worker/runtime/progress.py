"""What health is judged by: state, connection, and whether work moves.

The poll thread writes; the HTTP thread reads. Each field is one plain value that is replaced
whole, which needs no lock.
"""

from __future__ import annotations

from worker.clock import Clock
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.state import State, check_transition

log = get_logger(__name__)

_SAY_AGAIN = 30.0  # seconds
_BLINK = 3.0  # seconds without a connection that are no outage: a start, a reconnect


class Progress:
    """Liveness and readiness.

    Args:
        stall_timeout: seconds that work may wait without any progress.
    """

    def __init__(self, stall_timeout: float, metrics: Metrics, clock: Clock) -> None:
        self._stall_timeout = stall_timeout
        self._metrics, self._clock = metrics, clock
        self.state = State.STARTING
        self.joined = False  # once it has been a member, a rebalance does not make it less ready
        self._advanced_at = self._stepped_at = clock.monotonic()
        self._work_waiting = False
        self._down_since: float | None = None
        self._said_at = -_SAY_AGAIN

    def move(self, new: State) -> None:
        """Change state; staying is no change."""
        if new is not self.state:
            self.state = check_transition(self.state, new)
            self._metrics.state.set(int(new))

    def step(self, *, work_waiting: bool) -> None:
        """The main loop went round once."""
        self._stepped_at = self._clock.monotonic()
        if not work_waiting:
            self.advanced()
        self._work_waiting = work_waiting

    def advanced(self) -> None:
        """Something was acknowledged, or there is nothing to do."""
        self._advanced_at = self._clock.monotonic()

    def connection(self, *, up: bool, reason: str = "no connection is up") -> None:
        """Note whether a broker is connected; says so once a while when none is."""
        now = self._clock.monotonic()
        if up:
            if self.away:
                log.info("the broker is back")
                self.advanced()
            self._down_since = None
            return
        self._down_since = now if self._down_since is None else self._down_since
        if self.away and now - self._said_at >= _SAY_AGAIN:
            self._said_at = now
            log.warning("the broker is away; trying again until it is back", reason=reason)

    @property
    def away(self) -> bool:
        """Whether no broker has been connected for longer than a blink."""
        since = self._down_since
        return since is not None and self._clock.monotonic() - since >= _BLINK

    def ready(self) -> tuple[bool, str]:
        """Whether the worker takes part in its group, and in words."""
        if self.away:
            return False, "the broker is away"
        if self.state is State.RUNNING and not self.joined:
            return False, "joining the group"
        return self.state in (State.RUNNING, State.PAUSED), self.state.name.lower()

    def live(self) -> tuple[bool, str]:
        """Whether a restart would not help, and in words.

        Work that waits only because the broker is away is no stall: a restart would not bring
        the broker back, and would lose the loaded model.
        """
        if self.state is State.FAILED:
            return False, "failed"
        if self.state in (State.STARTING, State.WARMING) or self.away:
            return True, self.state.name.lower()
        now = self._clock.monotonic()
        for since, what in (
            (self._stepped_at, "the main loop has not gone round"),
            (self._advanced_at if self._work_waiting else now, "work waits, nothing acknowledged"),
        ):
            if now - since > self._stall_timeout:
                return False, f"{what} for {now - since:.0f} s"
        return True, self.state.name.lower()
