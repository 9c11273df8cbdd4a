"""Finds the dead letters that may be purged.

Kafka deletes records from the beginning of a partition only. So a partition may be purged up to its
first dead letter that is not settled.

Owns: the counts of each partition.
Thread: main, of `streamlabel dead-letters purge-report`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.core.dead_letters import Letter, LetterFilters
from worker.core.settled_letters import LetterState, SettledLetters

_SETTLED = ("labelled", "superseded", "copy")


@dataclass(slots=True)
class PurgePartition:
    """One partition of the dead-letter topic.

    Attributes:
        start: the first offset that it has.
        below: the offset below which all dead letters are settled.
        states: the number of dead letters that the filters choose, by state.
        soon: of these, those that retention removes soon and that are not settled.
    """

    start: int
    below: int
    states: Counter[LetterState] = field(default_factory=Counter)
    soon: int = 0


class PurgeReport:
    """The partitions of the dead-letter topic, each with what may be purged.

    Args:
        settled: knows the state of every dead letter.
        filters: choose what is counted. What may be purged depends on all dead letters.
        starts: by partition.
        ends: by partition.

    Attributes:
        partitions: by number.
    """

    def __init__(
        self,
        settled: SettledLetters,
        filters: LetterFilters,
        starts: Mapping[int, int],
        ends: Mapping[int, int],
    ) -> None:
        self._settled, self._filters = settled, filters
        self.partitions = {
            number: PurgePartition(min(starts.get(number, 0), end), end)
            for number, end in ends.items()
        }

    def add(self, letter: Letter, *, soon: bool) -> None:
        """Add the next dead letter of its partition.

        Args:
            letter: the dead letter.
            soon: whether retention removes it soon.
        """
        partition, state = self.partitions[letter.partition], self._settled.state(letter)
        is_open = state not in _SETTLED
        if is_open:
            partition.below = min(partition.below, letter.offset)
        if self._filters.accept(letter):
            partition.states[state] += 1
            partition.soon += soon and is_open
