"""Measures whether probabilities mean what they say: of texts at 0.8, 80 % should have the label.

The measure is the expected calibration error: the mean distance of a bin's share of true labels
from its mean probability, weighted by the bin's size (Naeini, Cooper and Hauskrecht, "Obtaining
Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; equation 3 of Guo et al., 2017).

Owns: the bins.
Thread: main, in `streamlabel calibrate`; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

BINS: Final = 10  # of equal width


class Bin(NamedTuple):
    """Statements whose probability lies in one tenth of the scale.

    Attributes:
        low, high: the bounds; `high` belongs to the bin only if it is 1.
        size: number of statements.
        stated: their mean probability; 0 without any.
        true: the share of them that is true; 0 without any.
    """

    low: float
    high: float
    size: int
    stated: float
    true: float


def statements(
    table: Sequence[Sequence[float]], truths: Sequence[frozenset[int]], *, independent: bool
) -> Iterator[tuple[float, bool]]:
    """Yield each probability that is judged, and whether its label is true.

    Each text's most probable label is judged if labels exclude each other, and every label if they
    are independent.

    Args:
        table: probabilities [texts, labels].
        truths: the true labels of each text.
        independent: whether each label has a probability of its own.
    """
    for row, truth in zip(table, truths, strict=True):
        if independent:
            yield from ((p, label in truth) for label, p in enumerate(row))
        else:
            best = max(range(len(row)), key=row.__getitem__)
            yield row[best], best in truth


def bins_of(judged: Iterable[tuple[float, bool]]) -> tuple[Bin, ...]:
    """Return the statements by tenths of their probability."""
    stated: list[list[float]] = [[] for _ in range(BINS)]
    true = [0] * BINS
    for probability, is_true in judged:
        number = min(int(probability * BINS), BINS - 1)
        stated[number].append(probability)
        true[number] += is_true
    return tuple(
        Bin(number / BINS, (number + 1) / BINS, len(ps), _mean(ps), _share(true[number], len(ps)))
        for number, ps in enumerate(stated)
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: 0 if every probability means what it says."""
    total = sum(one.size for one in bins)
    return math.fsum(one.size * abs(one.true - one.stated) for one in bins) / total


def accuracy(table: Sequence[Sequence[float]], truths: Sequence[frozenset[int]]) -> float:
    """Return the share of texts whose most probable label is true."""
    judged = [is_true for _, is_true in statements(table, truths, independent=False)]
    return sum(judged) / len(judged)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
