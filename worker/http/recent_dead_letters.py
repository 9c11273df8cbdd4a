"""Keeps the last dead letters for the page: their coordinates and the error, seldom their text.

Owns: the last twenty, one tuple that is replaced whole.
Thread: `note` on poll, or on revoke while poll is parked in a rebalance; any thread may read.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from worker.clock import Clock
from worker.core.records import DeadLettered, Encoded
from worker.core.visible import excerpt
from worker.http.notes import DEAD_LETTERS

_MAX_CHARACTERS: Final = 280  # of a text
_MAX_MESSAGE: Final = 500  # characters; a broker's message may be longer

Json = dict[str, Any]


class RecentDeadLetters:
    """The last dead letters that the broker acknowledged.

    Args:
        texts: True keeps the beginning of each value, False its length only.
        clock: dates them.
    """

    def __init__(self, *, texts: bool, clock: Clock) -> None:
        self._texts, self._clock = texts, clock
        self._letters: tuple[Json, ...] = ()

    def latest(self) -> Sequence[Json]:
        """Return the last dead letters, newest first."""
        return self._letters

    def note(self, outcomes: Sequence[Encoded]) -> None:
        """Look for dead letters among acknowledged outcomes."""
        dead = [outcome for outcome in outcomes if outcome.reason is not None][-DEAD_LETTERS:]
        if dead:
            now_ms = self._clock.wall_ms()
            letters = [self._letter(outcome, now_ms) for outcome in reversed(dead)]
            self._letters = (*letters, *self._letters)[:DEAD_LETTERS]

    def _letter(self, encoded: Encoded, now_ms: int) -> Json:
        topic, partition, offset, _ = encoded.ref
        letter: Json = {
            "at": now_ms,
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "reason": encoded.reason,
        }
        return letter | self._details(encoded.outcome)

    def _details(self, outcome: object) -> Json:
        if not isinstance(outcome, DeadLettered):
            return {"message": "", "stack_hash": None, "bytes": None}
        value, cut = outcome.record.value or b"", outcome.record.cut
        details: Json = {
            "message": excerpt(outcome.message, _MAX_MESSAGE),
            "stack_hash": outcome.stack_hash,
            "bytes": cut.value_bytes if cut else len(value),
        }
        if self._texts:
            text = value[: 4 * _MAX_CHARACTERS].decode(errors="replace")
            details["text"] = excerpt(text, _MAX_CHARACTERS)
        return details
