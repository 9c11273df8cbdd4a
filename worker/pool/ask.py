"""The box of a pool's page: the parent has no model, so it asks one of its processes.

Runs on the HTTP thread and never waits. Imports `runtime.box` and the rooms beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from worker.http.ask import Answer, Unanswerable
from worker.pool.child import Child
from worker.pool.slot import Slot


class PoolAskQueue:
    """Of these slots' processes."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots

    @property
    def ready(self) -> bool:
        """Whether there is a process to ask."""
        return self._first() is not None

    def ask(self, text: str) -> Future[Answer]:
        """Put a question; the future raises `Unanswerable` where the process fails or ends."""
        if child := self._first():
            return child.ask(text)
        nobody: Future[Answer] = Future()
        nobody.set_exception(Unanswerable("no process is free to be asked"))
        return nobody

    def _first(self) -> Child | None:
        """Whoever spoke last of those that can be asked: one that stands still says nothing."""
        children = (slot.child for slot in self._slots if slot.ready()[0])
        able = (child for child in children if child and child.free)
        return max(able, key=lambda child: child.heard_at, default=None)
