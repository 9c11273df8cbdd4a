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


_Key = tuple[Source, bytes]  # the record that was dead first, and the group of its outcomes


class SettledLetters:
    """Knows the state of every dead letter. It takes about 500 bytes a record.

    A record may have an outcome of the worker and one of each backfill. A dead letter is settled
    only by an outcome of its own group.
    """

    def __init__(self) -> None:
        self._last: dict[_Key, tuple[int, int, int]] = {}  # attempt, partition, offset
        self._labelled: set[_Key] = set()

    def add(self, letter: Letter) -> None:
        """Add a dead letter."""
        if (key := _key(letter)) is not None:
            self._last[key] = max(_place(letter), self._last.get(key, (0, 0, 0)))

    def add_result(self, source: Source, replay: Replay | None, group: bytes = b"") -> None:
        """Add a result with its coordinates, the replay that it is of, and its group."""
        key = (replay.source if replay else source), group
        if key in self._last:
            self._labelled.add(key)

    def state(self, letter: Letter) -> LetterState:
        """Return the state of a dead letter that was added."""
        if (key := _key(letter)) is None:
            return "unreadable"
        if key in self._labelled:
            return "labelled"
        # One that has arrived since is open: nothing is known of it.
        return "superseded" if _place(letter) < self._last.get(key, (0, 0, 0)) else "open"


def _key(letter: Letter) -> _Key | None:
    if letter.first is None or letter.context is None:
        return None
    return letter.first, letter.group


def _place(letter: Letter) -> tuple[int, int, int]:
    return letter.attempt, letter.partition, letter.offset
