"""Tells which dead letters are settled: a replay has labelled their record, or failed again.

A dead letter whose replay failed again is settled because a later one has the same bytes.

Owns: the last dead letter of each record, and which records have a result.
Thread: main, of `streamlabel dead-letters`; pure.
Must not import: anything but core.

Call `add` for every dead letter, `add_result` for every result, and then `state`.
"""

from __future__ import annotations

from typing import Literal

from worker.core.dead_letters import Letter
from worker.core.replay import Replay
from worker.core.replay_outcomes import Source

# `labelled` and `superseded` are settled; `open` waits for a replay, and `unreadable` for a person.
LetterState = Literal["labelled", "superseded", "open", "unreadable"]


class SettledLetters:
    """Knows the state of every dead letter. It takes about 400 bytes a record."""

    def __init__(self) -> None:
        self._last: dict[Source, tuple[int, int, int]] = {}  # attempt, partition, offset
        self._labelled: set[Source] = set()

    def add(self, letter: Letter) -> None:
        """Add a dead letter."""
        if (first := letter.first) is not None and letter.context is not None:
            self._last[first] = max(_place(letter), self._last.get(first, (0, 0, 0)))

    def add_result(self, source: Source, replay: Replay | None) -> None:
        """Add a result with its coordinates, and the replay that it is of."""
        first = replay.source if replay else source
        if first in self._last:
            self._labelled.add(first)

    def state(self, letter: Letter) -> LetterState:
        """Return the state of a dead letter that was added."""
        first = letter.first
        if first is None or letter.context is None:
            return "unreadable"
        if first in self._labelled:
            return "labelled"
        # One that has arrived since is open: nothing is known of it.
        return "superseded" if _place(letter) < self._last.get(first, (0, 0, 0)) else "open"


def _place(letter: Letter) -> tuple[int, int, int]:
    return letter.attempt, letter.partition, letter.offset
