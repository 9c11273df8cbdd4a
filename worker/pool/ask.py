"""Routes a question of the page to one process of the pool; the parent has no model of its own.

Owns: nothing.
Thread: http; never waits.
Must not import: kafka, torch, transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from worker.http.ask import Answer, Unanswerable
from worker.pool.child import Child
from worker.pool.slot import Slot


class AskRouter:
    """Sends each question to a process that is ready and owes no answer."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots

    @property
    def ready(self) -> bool:
        """True while a process is free to answer."""
        return self._choose() is not None

    def ask(self, text: str, record: Mapping[str, Any] | None = None) -> Future[Answer]:
        """Send a question; the future raises `Unanswerable` if the process fails or ends."""
        if child := self._choose():
            return child.ask(text, record)
        failed: Future[Answer] = Future()
        failed.set_exception(Unanswerable("no process is free to answer; try again"))
        return failed

    def _choose(self) -> Child | None:
        """Return the free process that reported last: a hung process sends no reports."""
        children = (slot.child for slot in self._slots if slot.ready()[0])
        free = (child for child in children if child and child.free)
        return max(free, key=lambda child: child.reported_at, default=None)
