"""Faults of the input's log, after which its places have other records or none.

The harness's thread begins them, as those of `kafka_faults.py`. A run with one of them is judged by
the numbers of its records, see `numbered_ledger.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.chaos.administrator import Administrator
from tests.chaos.agenda import Agenda
from tests.chaos.arena import Arena
from tests.chaos.lives import Lives
from tests.chaos.plan import Fault

_HOLD_S: Final = 5.0
_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "segment.ms": "400",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "0",
}
_TOMBSTONES: Final = 3


class InputFaults:
    """Faults of the input's log."""

    _agenda: Agenda
    _arena: Arena
    _administrator: Administrator
    _done: Callable[[Callable[[], None]], bool]
    _lives: Lives | None
    _remaking = _compacts = False

    def _topic_remade(self, fault: Fault) -> bool:
        """Delete the input while workers read it, and create it again later."""
        name, counted = self._arena.names.input, list[int]()
        if self._remaking or not self._done(lambda: counted.append(self._partitions(name))):
            return False
        self._remaking = self._end_life()
        if self._remaking:
            self._agenda.until_done(
                "the input's deletion",
                lambda: self._done(lambda: self._administrator.delete(name)),
                lambda: self._agenda.after(fault.duration, lambda: self._create_input(counted[0])),
            )
        return self._remaking

    def _partitions(self, topic: str) -> int:
        return self._administrator.partitions(topic)

    def _create_input(self, partitions: int) -> None:
        names = self._arena.names

        def create() -> None:
            self._administrator.create(names.input, partitions, names.group)
            self._arena.topic_id = self._administrator.topic_id(names.input)

        def created() -> None:
            self._remaking = False
            self._begin_life()

        self._agenda.until_done("the new input", lambda: self._done(create), created)

    def _compaction(self, fault: Fault) -> bool:
        """Let the cleaner remove records whose key has a later one, for some time."""
        name = self._arena.names.input
        if self._compacts or not self._done(
            lambda: self._administrator.configure(name, _COMPACTED)
        ):
            return False
        self._compacts = True
        self._arena.inject("tombstone", _TOMBSTONES)
        self._agenda.after(fault.duration, self._end_compaction)
        return True

    def _end_compaction(self) -> None:
        def ended() -> None:
            self._compacts = False

        def end() -> None:
            self._administrator.configure(self._arena.names.input, dict.fromkeys(_COMPACTED))

        self._agenda.until_done("the end of compaction", lambda: self._done(end), ended)

    def _end_life(self) -> bool:
        """Let the producer rest, and the watch of the log; return False if that is not possible."""
        if self._lives is None:
            return False
        if not self._arena.hold(_HOLD_S):
            self._arena.go_on()
            return False
        self._lives.end()
        return True

    def _begin_life(self) -> None:
        """Let both go on, in another life of the log; see `Lives.begin`."""
        assert self._lives is not None
        self._lives.begin(self._arena.next_number)
        self._arena.go_on()
