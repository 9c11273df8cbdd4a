"""The input records of a run, by the kind of outcome that each must have.

The producer's thread notes; the harness's counts once it has ended, but for `total`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from tests.chaos.decisions import Kind

Fate = Kind | Literal["bad"]  # a bad record must become a dead letter


class Sent:
    """Acknowledged input records.

    Attributes:
        total: their number.
    """

    def __init__(self) -> None:
        self.total = 0
        self._places: dict[Fate, Counter[tuple[int, int]]] = {}

    def note(self, fate: Fate, partition: int, offset: int) -> None:
        """Add a record."""
        self.total += 1
        self._places.setdefault(fate, Counter())[partition, offset] += 1

    def count(self, fate: Fate, starts: Mapping[int, int] | None = None) -> int:
        """Return the number of records with this fate.

        Args:
            fate: of the records.
            starts: partition -> first offset that its log still has; earlier ones don't count.
        """
        first = starts or {}
        places = self._places.get(fate, {})
        return sum(n for (p, at), n in places.items() if at < 0 or at >= first.get(p, 0))
