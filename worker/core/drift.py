"""Measures drift: the distribution of the newest results against the first ones.

The measure is the population stability index, the symmetric relative entropy of two distributions
(Jeffreys, 1946; Kullback and Leibler, "On Information and Sufficiency", 1951), by its name in
credit scoring. The usual interpretation (Siddiqi, "Credit Risk Scorecards", 2006): below 0.1
stable, up to 0.25 moving, above that shifted. Chance alone gives about (cells - 1) * (1 / reference
+ 1 / window) (Yurdakul and Naranjo, "Statistical properties of the population stability index",
2020): 0.002 for two labels, 2,000 results and 1,000, and 0.04 for 28 labels.

Owns: the counts of the two distributions.
Thread: main, which counts outcomes; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

Cell = TypeVar("Cell", bound=Hashable)

# A cell that is empty on one side would make the index infinite. Half a result is added to every
# cell (the Krichevsky-Trofimov estimate), so that a cell never seen counts as too rare to be seen:
# a label that occurs once and never before adds 0.002 to the index, a label that takes over adds 3.
_SMOOTHING: Final = 0.5
_BLOCKS: Final = 10
_STABLE, _SHIFTED = 0.1, 0.25  # the usual interpretation


def stability_index(reference: Mapping[Cell, int], current: Mapping[Cell, int]) -> float:
    """Return the sum over the cells of (q - p) * ln(q / p), p and q being a cell's shares.

    Args:
        reference: number of results in each cell.
        current: the same of other results; cells that both lack don't count.
    """
    cells = reference.keys() | current.keys()
    reference_total = sum(reference.values()) + _SMOOTHING * len(cells)
    current_total = sum(current.values()) + _SMOOTHING * len(cells)
    index = 0.0
    for cell in cells:
        p = (reference.get(cell, 0) + _SMOOTHING) / reference_total
        q = (current.get(cell, 0) + _SMOOTHING) / current_total
        index += (q - p) * math.log(q / p)
    return index


class Drift(Generic[Cell]):
    """Compares the newest results with the first ones.

    The reference fills first, then the window, each by whole micro-batches. The window slides by
    tenths of its size. So it needs the memory of eleven counters at any size, and holds up to a
    tenth and a micro-batch more than `window`.

    Args:
        reference: number of first results to compare with.
        window: number of newest results to compare.

    Attributes:
        index: the stability index; 0 until the window is full for the first time.
    """

    def __init__(self, reference: int, window: int) -> None:
        self._wanted, self._window = reference, window
        self._reference: Counter[Cell] = Counter()
        self._blocks: deque[Counter[Cell]] = deque([Counter()])
        self._current: Counter[Cell] = Counter()
        self.index = 0.0

    def note(self, cells: Iterable[Cell]) -> None:
        """Add a micro-batch of results, each by its cell."""
        counted = Counter(cells)
        if self._reference.total() < self._wanted:
            self._reference += counted
            return
        if self._blocks[-1].total() * _BLOCKS >= self._window:
            self._blocks.append(Counter())
        self._blocks[-1] += counted
        self._current += counted
        while self._current.total() - self._blocks[0].total() >= self._window:
            self._current -= self._blocks.popleft()
        if self._current.total() >= self._window:
            self.index = stability_index(self._reference, self._current)


def reading(index: float) -> str:
    """Return the interpretation of an index; empty for 0, which also means too few results."""
    if not index:
        return ""
    return "stable" if index < _STABLE else "moving" if index < _SHIFTED else "shifted"


def cell_of(value: float, bounds: Sequence[float]) -> int:
    """Return the index of the first of the ascending bounds that the value does not exceed."""
    return bisect.bisect_left(bounds, value)
