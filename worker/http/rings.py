"""Keeps numbers over time in bounded memory: rows in columns of floats, the oldest replaced.

Owns: the memory of the history.
Thread: http, on the event loop.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

Fold = Callable[[Sequence[float]], float]  # several rows of a column into one; never called without

_MISSING: Final = math.nan
_DIGITS: Final = 6  # a float of four bytes has no more


class Ring:
    """The last rows, each with a time and a number in some of the columns.

    A row takes 8 bytes, and 4 for each column. A column exists from its first number on, so the
    caller bounds the number of names.

    Args:
        size: rows that are kept.

    Attributes:
        added: rows that were ever added.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = array("q", bytes(8 * size))
        self._columns: dict[str, array[float]] = {}
        self.added = 0

    @property
    def bytes(self) -> int:
        """Memory of the numbers."""
        return self._size * (8 + 4 * len(self._columns))

    def __len__(self) -> int:
        return min(self.added, self._size)

    def drop(self, column: str) -> None:
        """Forget a column."""
        self._columns.pop(column, None)

    def begin(self, column: str, number: float) -> None:
        """Make a column that has this number in the rows so far."""
        self._columns[column] = array("f", [number]) * self._size

    def add(self, at: int, numbers: Mapping[str, float | None]) -> None:
        """Append a row.

        Args:
            at: its time, milliseconds.
            numbers: by column; None, or an absent column, is no number.
        """
        place = self.added % self._size
        self.added += 1
        self._at[place] = at
        for column in self._columns.values():
            column[place] = _MISSING
        for name, number in numbers.items():
            if number is not None:
                if name not in self._columns:
                    self.begin(name, _MISSING)
                self._columns[name][place] = number

    def newest(self, column: str, rows: int) -> list[float | None]:
        """Return a column's numbers in the last rows, oldest first."""
        numbers = self._columns.get(column)
        places = range(self.added - min(rows, len(self)), self.added)
        found = [numbers[place % self._size] if numbers else _MISSING for place in places]
        return [None if math.isnan(number) else _short(number) for number in found]

    def folded(
        self, since: int, step: int, folds: Mapping[str, Fold]
    ) -> Iterator[tuple[int, dict[str, float | None]]]:
        """Yield one row for each `step` milliseconds in which there are rows, oldest first.

        Args:
            since: rows of earlier times are left out.
            step: intervals begin at multiples of it; a row of theirs has the time of its last one.
            folds: the columns to return, and how several rows become one. Missing numbers are
                skipped; None if all are missing.
        """
        group: list[int] = []
        for place in self._places(since):
            if group and self._at[place] // step != self._at[group[0]] // step:
                yield self._fold(group, folds)
                group = []
            group.append(place)
        if group:
            yield self._fold(group, folds)

    def fold(self, since: int, folds: Mapping[str, Fold]) -> tuple[int, dict[str, float | None]]:
        """Return one row for all since this time; see `folded`. There must be one."""
        return self._fold(list(self._places(since)), folds)

    def _places(self, since: int) -> Iterator[int]:
        first = self.added - len(self)
        places = (row % self._size for row in range(first, self.added))
        return (place for place in places if self._at[place] >= since)

    def _fold(
        self, group: Sequence[int], folds: Mapping[str, Fold]
    ) -> tuple[int, dict[str, float | None]]:
        row: dict[str, float | None] = {}
        for name, fold in folds.items():
            column = self._columns.get(name)
            numbers = [column[place] for place in group] if column else []
            present = [number for number in numbers if not math.isnan(number)]
            row[name] = _short(fold(present)) if present else None
        return self._at[group[-1]], row


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
