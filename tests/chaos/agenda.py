"""Actions and their times. The harness's thread owns it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import Final

from worker.clock import Clock

RETRY_S: Final = 1.0  # until a fault without a target, or a server that is not back, is tried again
END_S: Final = 300.0  # in which the end of a fault must succeed; other faults may delay it


class EndFailed(Exception):
    """The end of a fault never succeeded; the message names it."""


class Agenda:
    """Actions and their times, in seconds of the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
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

    def until_done(
        self, what: str, change: Callable[[], bool], then: Callable[[], None] = lambda: None
    ) -> None:
        """Try a change now, and again each second until it succeeds.

        Args:
            what: names the change.
            change: returns whether it succeeded.
            then: is called after it has succeeded.

        Raises:
            EndFailed: it did not succeed in `END_S`; a later try raises it in `run_due`.
        """
        self._try(what, change, then, self._clock.monotonic() + END_S)

    def _try(
        self, what: str, change: Callable[[], bool], then: Callable[[], None], deadline: float
    ) -> None:
        if change():
            then()
        elif self._clock.monotonic() < deadline:
            self.after(RETRY_S, partial(self._try, what, change, then, deadline))
        else:
            raise EndFailed(f"{what}: not done in {END_S:g} s")
