"""Checks exactly once at every moment of a run, and not only at its end. Pure.

A transaction makes outcomes, copies and offsets visible together. So at each moment:

* an outcome that a reader of committed records sees is covered by the group's stable offset, if
  that is read after it;
* a record below a stable offset has its outcome, with each copy that it announces, below the end
  of the log that is read after the offset;
* no reader sees an outcome twice.

In a run whose input may have several records at one offset in turn, a record is known by its
number. The caller names the numbers that must be complete.

https://kafka.apache.org/documentation/#semantics
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from worker.core.records import Partition
from worker.kafka_io.audit_outcomes import AuditedOutcome

_EXAMPLES = 5


class _Copy(NamedTuple):
    route: str
    topic: str
    origin: Partition
    at: int


class _Due(NamedTuple):
    """Records that must be complete once the reader has reached the ends."""

    committed: Mapping[Partition, int]
    numbers: AbstractSet[int] | None
    ends: Mapping[Partition, int]


class Prefixes:
    """Compares the outcomes that a reader has seen with those that it must have seen.

    Attributes:
        checks: how often each promise was checked: `covered` and `seen_once` outcomes, `complete`
            offsets.
        torn: number of broken promises, by promise.
        examples: the first ones.
        fresh: input partition -> highest outcome that is not known to be covered yet.
    """

    def __init__(self) -> None:
        self.checks: Counter[str] = Counter()
        self.torn: Counter[str] = Counter()
        self.examples: list[str] = []
        self._seen: dict[Partition, set[int]] = {}
        self._first_unseen: Counter[Partition] = Counter()
        self._copies: set[_Copy] = set()
        self._announced: set[_Copy] = set()
        self.fresh: dict[Partition, int] = {}
        self._due: deque[_Due] = deque()
        self._numbers: set[int] = set()
        self._finished: set[int] = set()
        self._starts: Counter[Partition] = Counter()

    def see(
        self, outcome: AuditedOutcome, topic: str, number: int | None = None, *, ended: bool = False
    ) -> None:
        """Take an outcome or a copy that the reader got from a topic.

        Args:
            outcome: that was read.
            topic: it was read from.
            number: of its record, where a place may have several records.
            ended: whether the record is of a life of the log that has ended, with its offsets.
        """
        if outcome.source is None:
            return
        origin, offset = Partition(*outcome.source[:2]), outcome.source[2]
        at = offset if number is None else number
        self.checks["seen_once"] += 1
        if outcome.copy_route is not None:
            copy = _Copy(outcome.copy_route, topic, origin, at)
            again = copy in self._copies
            self._copies.add(copy)
        else:
            seen = self._seen.setdefault(origin, set()) if number is None else self._numbers
            again = at in seen
            seen.add(at)
        if again:
            self._broken("seen_once", f"{origin} {offset} in {topic}, number {number}")
        for note in outcome.copies:
            self._announced.add(_Copy(note.route, note.topic, origin, at))
        if not ended:
            self.fresh[origin] = max(offset, self.fresh.get(origin, offset))

    def covered(self, committed: Mapping[Partition, int]) -> None:
        """Check all outcomes since the last call against stable offsets that were read later."""
        for origin, offset in self.fresh.items():
            self.checks["covered"] += 1
            if offset >= committed.get(origin, 0):
                found = committed.get(origin)
                self._broken("covered", f"{origin} {offset} is visible; committed: {found}")
        self.fresh.clear()

    def expect(
        self,
        committed: Mapping[Partition, int],
        ends: Mapping[Partition, int],
        numbers: AbstractSet[int] | None = None,
    ) -> None:
        """Note stable offsets, and the ends of the outcomes' logs that were read after them.

        Args:
            committed: stable offsets; not used if there are numbers.
            ends: of the outcomes' logs.
            numbers: of records that the group had passed before; None: all below the offsets.
        """
        self._due.append(_Due(committed, numbers, ends))

    def reached(self, positions: Mapping[Partition, int], starts: Mapping[Partition, int]) -> None:
        """Check the offsets whose ends the reader has reached.

        Args:
            positions: of the reader, in the outcomes' partitions.
            starts: of the inputs' logs; earlier records may have no outcome.
        """
        for origin, start in starts.items():
            self._starts[origin] = max(start, self._starts[origin])
        while self._due and _all_below(self._due[0].ends, positions):
            self._check(self._due.popleft())

    def _check(self, due: _Due) -> None:
        if due.numbers is None:
            for origin, offset in due.committed.items():
                self._complete(origin, offset)
        else:
            self._complete_numbers(due.numbers - self._finished)
        for copy in self._announced - self._copies:
            finished = (
                copy.at < due.committed.get(copy.origin, 0)
                if due.numbers is None
                else copy.at in self._finished
            )
            if finished:
                self._announced.discard(copy)
                self._broken("complete", f"no copy of {copy.origin} {copy.at}")

    def _complete_numbers(self, numbers: AbstractSet[int]) -> None:
        self.checks["complete"] += len(numbers)
        for number in sorted(numbers - self._numbers):
            self._broken("complete", f"number {number} has no outcome")
        self._finished |= numbers

    @property
    def waiting(self) -> bool:
        """True while there are offsets whose ends the reader has not reached."""
        return bool(self._due)

    def _complete(self, origin: Partition, offset: int) -> None:
        seen = self._seen.get(origin, set())
        first = max(self._first_unseen[origin], self._starts[origin])
        for at in range(first, offset):
            self.checks["complete"] += 1
            if at not in seen:
                self._broken("complete", f"{origin} {at} has no outcome; committed: {offset}")
        self._first_unseen[origin] = max(first, offset)

    def _broken(self, promise: str, example: str) -> None:
        self.torn[promise] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{promise}: {example}")


def _all_below(ends: Mapping[Partition, int], positions: Mapping[Partition, int]) -> bool:
    return all(positions.get(partition, 0) >= end for partition, end in ends.items())
