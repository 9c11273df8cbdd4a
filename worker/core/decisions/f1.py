"""Finds each label's threshold, above which a text has the label, by F1.

Owns: the definition of F1, and the search for the threshold with the highest one.
Thread: main, in `streamlabel calibrate`; pure.
Must not import: any package of the worker but core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from worker.core.decisions.rules import USUAL_THRESHOLD

FEWEST: Final = 5  # texts with a label, and without it; fewer give no threshold


def f1(right: int, decided: int, true: int) -> float:
    """Return 2PR / (P + R), the harmonic mean of precision and recall; 0 if nothing is right.

    Args:
        right: texts that were given the label and have it.
        decided: texts that were given it.
        true: texts that have it.
    """
    return 2 * right / (decided + true) if right else 0.0


def fit_thresholds(
    table: Sequence[Sequence[float]], truths: Sequence[frozenset[int]], labels: int
) -> dict[int, float]:
    """Return the threshold with the highest F1 of each label that enough texts have and lack.

    Args:
        table: probabilities [texts, labels].
        truths: the true labels of each text.
        labels: their number.
    """
    fitted: dict[int, float] = {}
    for label in range(labels):
        column = [row[label] for row in table]
        has = [label in truth for truth in truths]
        if min(sum(has), len(has) - sum(has)) >= FEWEST:
            fitted[label] = _best(column, has)
    return fitted


def mean_f1(
    table: Sequence[Sequence[float]],
    truths: Sequence[frozenset[int]],
    thresholds: Sequence[Mapping[int, float]],
) -> float:
    """Return the mean F1 of the labels that a text has or is given ("macro F1").

    Args:
        table: probabilities [texts, labels].
        truths: the true labels of each text.
        thresholds: of each text, by label; a label without one has `USUAL_THRESHOLD`.
    """
    right: dict[int, int] = {}
    decided: dict[int, int] = {}
    true: dict[int, int] = {}
    for row, truth, own in zip(table, truths, thresholds, strict=True):
        chosen = {label for label, p in enumerate(row) if p >= own.get(label, USUAL_THRESHOLD)}
        for counts, members in ((right, chosen & truth), (decided, chosen), (true, truth)):
            for label in members:
                counts[label] = counts.get(label, 0) + 1
    known = decided.keys() | true.keys()
    scores = [f1(*(counts.get(label, 0) for counts in (right, decided, true))) for label in known]
    return sum(scores) / len(scores) if scores else 0.0


def _best(column: Sequence[float], has: Sequence[bool]) -> float:
    """Return the threshold with the highest F1; of equal ones the highest, which decides less."""
    order = sorted(zip(column, has, strict=True), reverse=True)
    true, right = sum(has), 0
    best, between = 0.0, (order[0][0], 1.0)
    below = [*(p for p, _ in order[1:]), 0.0]
    for decided, ((p, is_true), lower) in enumerate(zip(order, below, strict=True), start=1):
        right += is_true
        if p > lower and (score := f1(right, decided, true)) > best:
            best, between = score, (lower, p)
    return _short(*between)


def _short(low: float, high: float) -> float:
    """Return a number with few digits in the interval (low, high], near its middle."""
    middle = (low + high) / 2
    rounded = (round(middle, digits) for digits in range(2, 17))
    return next((number for number in rounded if low < number <= high), high)
