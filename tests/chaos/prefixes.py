"""Checks exactly once at every moment of a run, and not only at its end. Pure.

A transaction makes outcomes, copies and offsets visible together. So at each moment:

* an outcome that a reader of committed records sees is covered by the group's stable offset, if
  that is read after it;
* a record below a stable offset has its outcome, with each copy that it announces, below the end
  of the log that is read after the offset;
* no reader sees an outcome twice.

https://kafka.apache.org/documentation/#semantics
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

from worker.core.records import Partition
from worker.kafka_io.audit_outcomes import AuditedOutcome

_EXAMPLES = 5


class _Copy(NamedTuple):
    route: str
    topic: str
    origin: Partition
    offset: int


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
        self._due: deque[tuple[Mapping[Partition, int], Mapping[Partition, int]]] = deque()
        self._starts: Counter[Partition] = Counter()

    def see(self, outcome: AuditedOutcome, topic: str) -> None:
        """Take an outcome or a copy that the reader got from a topic."""
        if outcome.source is None:
            return
        name, number, offset = outcome.source
        origin = Partition(name, number)
        self.checks["seen_once"] += 1
        if outcome.copy_route is not None:
            copy = _Copy(outcome.copy_route, topic, origin, offset)
            again = copy in self._copies
            self._copies.add(copy)
        else:
            seen = self._seen.setdefault(origin, set())
            again = offset in seen
            seen.add(offset)
        if again:
            self._broken("seen_once", f"{origin} {offset} in {topic}")
        for note in outcome.copies:
            self._announced.add(_Copy(note.route, note.topic, origin, offset))
        self.fresh[origin] = max(offset, self.fresh.get(origin, offset))

    def covered(self, committed: Mapping[Partition, int]) -> None:
        """Check all outcomes since the last call against stable offsets that were read later."""
        for origin, offset in self.fresh.items():
            self.checks["covered"] += 1
            if offset >= committed.get(origin, 0):
                found = committed.get(origin)
                self._broken("covered", f"{origin} {offset} is visible; committed: {found}")
        self.fresh.clear()

    def expect(self, committed: Mapping[Partition, int], ends: Mapping[Partition, int]) -> None:
        """Note stable offsets, and the ends of the outcomes' logs that were read after them."""
        self._due.append((committed, ends))

    def reached(self, positions: Mapping[Partition, int], starts: Mapping[Partition, int]) -> None:
        """Check the offsets whose ends the reader has reached.

        Args:
            positions: of the reader, in the outcomes' partitions.
            starts: of the inputs' logs; earlier records may have no outcome.
        """
        for origin, start in starts.items():
            self._starts[origin] = max(start, self._starts[origin])
        while self._due and _all_below(self._due[0][1], positions):
            committed, _ = self._due.popleft()
            for origin, offset in committed.items():
                self._complete(origin, offset)
            absent = self._announced - self._copies
            for copy in absent:
                if copy.offset < committed.get(copy.origin, 0):
                    self._announced.discard(copy)
                    self._broken("complete", f"no copy of {copy.origin} {copy.offset}")

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
