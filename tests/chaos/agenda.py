"""Actions and their times. The harness's thread owns it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final

from worker.clock import SystemClock

RETRY_S: Final = 1.0  # until a fault without a target, or a server that is not back, is tried again


class Agenda:
    """Actions and their times, in seconds of the monotonic clock."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._actions: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def empty(self) -> bool:
        """Return whether nothing is left to do."""
        return not self._actions

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Call `action` at a time."""
        heapq.heappush(self._actions, (when, next(self._order), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` in some seconds."""
        self.at(self._clock.monotonic() + seconds, action)

    def run_due(self) -> None:
        """Call the actions that are due."""
        while self._actions and self._actions[0][0] <= self._clock.monotonic():
            heapq.heappop(self._actions)[2]()
