"""What health is judged by: state, connection, and whether work moves.

The poll thread writes; the HTTP thread reads. Each field is one plain value that is replaced
whole, which needs no lock. A stall is said in the log by whoever looks first: the poll thread
looks once a second, and where that is the thread that stands still, a probe of /livez does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from worker.clock import Clock
from worker.core.records import RecordRef
from worker.core.state import State, check_transition
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.stall import Holder, Stall, Wait, stacks

log = get_logger(__name__)

_SAY_AGAIN = 30.0  # seconds
_AT_WORK = frozenset({State.RUNNING, State.PAUSED})
_BLINK = 3.0  # seconds without a connection that are no outage: a start, a reconnect


class Progress:
    """Liveness and readiness.

    Args:
        stall_timeout: seconds that whoever holds work may go without a step.

    Attributes:
        joined: whether it has been a member of its group; a rebalance after that does not make it
            less ready.
        acknowledgements, commits: what the main loop waits for.
        oldest: the oldest record in flight, and when it was polled, in seconds of the clock.
    """

    def __init__(self, stall_timeout: float, metrics: Metrics, clock: Clock) -> None:
        self._stall_timeout = stall_timeout
        self._metrics, self._clock = metrics, clock
        self.state = State.STARTING
        self.joined = False
        self.acknowledgements = Wait("the broker has not acknowledged the oldest of {} records")
        self.commits = Wait("the offsets of {} partitions have waited for their commit")
        self._waits: tuple[Holder, ...] = (self.commits, self.acknowledgements)
        self._stages: tuple[Holder, ...] = ()
        self.oldest: tuple[RecordRef, float] | None = None
        self._main: int | None = None
        self._round_at = self._since = clock.monotonic()
        self._down_since: float | None = None
        self._said_at = -_SAY_AGAIN
        self._lock = threading.Lock()  # of what was said of a stall
        self._said = ""
        metrics.live.set_function(lambda: self.live()[0])
        metrics.ready.set_function(lambda: self.ready()[0])

    def move(self, new: State) -> None:
        """Change state; staying is no change."""
        if new is not self.state:
            if not {new, self.state} <= _AT_WORK:  # to pause and to resume moves nothing
                self._since = self._clock.monotonic()
            self.state = check_transition(self.state, new)
            self._metrics.state.set(int(new))

    def watch(self, stages: Sequence[Holder]) -> None:
        """Judge the calling thread's rounds and these stages, which come in the data's order."""
        self._main = threading.get_ident()
        self._stages = tuple(reversed(stages))

    def went_round(self) -> None:
        """The main loop went round once, or what stands in for it in a rebalance."""
        self._round_at = self._clock.monotonic()

    def connection(self, *, up: bool, reason: str = "no connection is up") -> None:
        """Note whether a broker is connected; says so once a while when none is."""
        now = self._clock.monotonic()
        if up:
            if self.away:
                log.info("the broker is back")
                self._since = now  # what waited for it may begin again
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
        return self.state in _AT_WORK, self.state.name.lower()

    def live(self) -> tuple[bool, str]:
        """Whether a restart would not help, and in words.

        Work that waits only because the broker is away is no stall: a restart would not bring
        the broker back, and would lose the loaded model. A worker that drains has a bound of its
        own, `shutdown_timeout`.
        """
        if self.state is State.FAILED:
            return False, "failed"
        watched = self.state in _AT_WORK and not self.away
        stall = self._stall() if watched else None
        self._say(stall)
        return stall is None, str(stall) if stall else self.state.name.lower()

    def _stall(self) -> Stall | None:
        standing = self._standing(self._round_at)
        if standing > self._stall_timeout:
            # What it waits for is counted by itself, and would be blamed in its stead.
            words = "the main loop has not gone round"
            return Stall(words, standing, (self._main,), self._oldest())
        for holder in self._judged():
            standing = self._standing(holder.moved_at)
            if standing > self._stall_timeout:
                threads = tuple(holder.threads())
                return Stall(holder.describe(), standing, threads, self._oldest())
        return None

    def _judged(self) -> list[Holder]:
        """The holders whose last step counts."""
        waits = [wait for wait in self._waits if wait.held > 0]
        return waits or [stage for stage in self._stages if stage.held > 0][:1]

    def _oldest(self) -> str:
        if self.oldest is None:
            return ""
        (topic, partition, offset, _), polled_at = self.oldest
        age = self._clock.monotonic() - polled_at
        return (
            f"; the oldest record is {topic}[{partition}] offset {offset}, polled {age:.0f} s ago"
        )

    def _standing(self, moved_at: float) -> float:
        return self._clock.monotonic() - max(moved_at, self._since)

    def _say(self, stall: Stall | None) -> None:
        """A stall and its stacks, once; and its end."""
        what = stall.what if stall else ""
        with self._lock:
            before, self._said = self._said, what
        if stall and not before:
            log.error("stalled", reason=str(stall), threads=stacks(stall.threads))
        elif before and not stall:
            log.info("work moves again")
