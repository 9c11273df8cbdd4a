"""Whether what the model says has shifted: the newest results beside the first ones. Pure.

Owned by one thread, the poll thread, which counts outcomes. Imports no other room.

The measure is the population stability index, the symmetric relative entropy of two distributions
(Jeffreys, 1946; Kullback and Leibler, "On Information and Sufficiency", 1951) under the name that
credit scoring gave it. The usual reading (Siddiqi, "Credit Risk Scorecards", 2006): below 0.1
stable, up to 0.25 worth a look, above that shifted. By chance alone it comes to about
(cells - 1) * (1 / reference + 1 / window) (Yurdakul and Naranjo, "Statistical properties of the
population stability index", 2020): 0.002 for two labels, 2,000 results and 1,000, and 0.04 for 28.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

Cell = TypeVar("Cell", bound=Hashable)

# A cell that is empty on one side would make the index infinite. Half a result more in every cell
# (the Krichevsky-Trofimov estimate) makes of "never seen" "rarer than could be seen in so many": a
# label that comes up once where there was none adds 0.002 to the index, one that takes all, 3.
_SMOOTHING: Final = 0.5
_BLOCKS: Final = 10
_STABLE, _SHIFTED = 0.1, 0.25  # the usual reading


def stability_index(reference: Mapping[Cell, int], current: Mapping[Cell, int]) -> float:
    """Sum over the cells of (q - p) * ln(q / p), p and q being a cell's shares.

    Args:
        reference: results by cell.
        current: others; a cell that neither has does not count.
    """
    cells = reference.keys() | current.keys()
    then = sum(reference.values()) + _SMOOTHING * len(cells)
    now = sum(current.values()) + _SMOOTHING * len(cells)
    index = 0.0
    for cell in cells:
        p = (reference.get(cell, 0) + _SMOOTHING) / then
        q = (current.get(cell, 0) + _SMOOTHING) / now
        index += (q - p) * math.log(q / p)
    return index


class Drift(Generic[Cell]):
    """The index of the newest results against the first ones.

    The reference fills first, then the window, each by whole micro-batches. The window slides by
    tenths of its size: memory is eleven counts by cell however large it is, and it holds up to a
    tenth, and a micro-batch, more than asked for.

    Args:
        reference: results to compare with, the first ones.
        window: results to compare, the newest.

    Attributes:
        index: 0 until the window is full for the first time.
    """

    def __init__(self, reference: int, window: int) -> None:
        self._wanted, self._window = reference, window
        self._reference: Counter[Cell] = Counter()
        self._blocks: deque[Counter[Cell]] = deque([Counter()])
        self._current: Counter[Cell] = Counter()
        self.index = 0.0

    def note(self, cells: Iterable[Cell]) -> None:
        """Take a micro-batch of results in, each by its cell."""
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
    """The index in a word. Nothing is said of 0: too few results, or really no difference."""
    if not index:
        return ""
    return "stable" if index < _STABLE else "moving" if index < _SHIFTED else "shifted"


def cell_of(value: float, bounds: Sequence[float]) -> int:
    """Which cell a value falls into: the first of these rising bounds that it does not exceed."""
    return bisect.bisect_left(bounds, value)
