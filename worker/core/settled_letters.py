"""Tells which dead letters are settled: a replay has labelled their record, or failed again.

A dead letter whose replay failed again is settled if another one keeps as much of the record.

Owns: what the dead letters of each record keep, and which records have a result.
Thread: main, of `streamlabel dead-letters`; pure.
Must not import: anything but core.

Call `add` for every dead letter, `add_result` for every result, and then `state`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal, NamedTuple

from worker.core.dead_letters import Letter
from worker.core.replay import Replay
from worker.core.replay_outcomes import Source

# `labelled` (or filtered) and `superseded` are settled. `copy` stands for a copy that a topic
# refused: the record has an outcome. `open` waits for a replay, and `unreadable` for a person.
LetterState = Literal["labelled", "superseded", "copy", "open", "unreadable"]


_Key = tuple[Source, bytes]  # the record that was dead first, and the group of its outcomes


class _Kept(NamedTuple):
    """The part of its record that one dead letter keeps.

    Attributes:
        size: bytes of the value that are kept.
        complete: whether key and headers are there.
        place: attempt, partition, offset.
    """

    size: int
    complete: bool
    place: tuple[int, int, int]

    def supersedes(self, other: _Kept) -> bool:
        """Return whether this one keeps more, or as much and is later."""
        at_least = self.size >= other.size and self.complete >= other.complete
        return at_least and self > other


class SettledLetters:
    """Knows the state of every dead letter. It takes about 500 bytes a record.

    A record may have an outcome of the worker and one of each backfill. A dead letter is settled
    only by an outcome of its own group.
    """

    def __init__(self) -> None:
        self._kept: defaultdict[_Key, list[_Kept]] = defaultdict(list)
        self._labelled: set[_Key] = set()

    def add(self, letter: Letter) -> None:
        """Add a dead letter."""
        if (key := _key(letter)) is not None and not letter.of_copy:
            self._kept[key].append(_kept(letter))

    def add_result(self, source: Source, replay: Replay | None, group: bytes = b"") -> None:
        """Add a result or a note with its coordinates, the replay that it is of, and its group."""
        key = (replay.source if replay else source), group
        if key in self._kept:
            self._labelled.add(key)

    def state(self, letter: Letter) -> LetterState:
        """Return the state of a dead letter that was added."""
        if (key := _key(letter)) is None:
            return "unreadable"
        if letter.of_copy:
            return "copy"
        if key in self._labelled:
            return "labelled"
        # One that has arrived since is open: nothing is known of it.
        own = _kept(letter)
        better = any(kept.supersedes(own) for kept in self._kept.get(key, ()))
        return "superseded" if better else "open"

    def attempts(self, letter: Letter) -> int:
        """Return the number of replays of the dead letter's record so far."""
        key = _key(letter)
        known = self._kept.get(key, ()) if key else ()
        return max((kept.place[0] for kept in known), default=0)


def _key(letter: Letter) -> _Key | None:
    if letter.first is None or letter.context is None:
        return None
    return letter.first, letter.group


def _kept(letter: Letter) -> _Kept:
    context = letter.context
    complete = context is not None and context.complete
    return _Kept(len(letter.value), complete, (letter.attempt, letter.partition, letter.offset))
