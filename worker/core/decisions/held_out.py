"""Calibrates a model on labelled texts, and measures the effect on texts that it did not see.

Owns: the calibration as a whole, and its figures.
Thread: main, in `streamlabel calibrate`; pure.
Must not import: any package of the worker but core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from worker.core.decisions.calibration import (
    Fit,
    LabelledOutput,
    Probabilities,
    Rescale,
    fit_temperature,
    negative_log_likelihood,
)
from worker.core.decisions.f1 import fit_thresholds, mean_f1
from worker.core.decisions.reliability import (
    Bin,
    accuracy,
    bins_of,
    calibration_error,
    statements,
)

Truths = Sequence[frozenset[int]]


class Quality(NamedTuple):
    """How good probabilities are.

    Attributes:
        loss: mean negative log-likelihood, nats.
        error: expected calibration error.
        hits: accuracy of labels that exclude each other; mean F1 of independent ones.
        bins: the reliability table.
    """

    loss: float
    error: float
    hits: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature and thresholds, fitted on all texts.

    Attributes:
        fit: the temperature.
        thresholds: by the index of the label; empty for labels that exclude each other.
        before: the quality of the model's own probabilities, with thresholds of 0.5.
        after: the quality after calibration. Each text is measured with the temperature and the
            thresholds of the other folds.
        by_fold: the temperature that each fold was measured with; they show how certain it is.
    """

    fit: Fit
    thresholds: Mapping[int, float]
    before: Quality
    after: Quality
    by_fold: tuple[float, ...]


def calibrate(
    rows: Sequence[LabelledOutput],
    folds: Sequence[int],
    rescale: Rescale,
    *,
    independent: bool,
) -> Calibration:
    """Fit on all rows, and measure each fold with a fit on the others.

    Args:
        rows: labelled texts.
        folds: the fold of each, numbered from 0; at least two are in use.
        rescale: the worker's own computation of probabilities.
        independent: whether each label has a probability of its own.
    """
    fits: dict[int, Fit] = {}
    thresholds: dict[int, dict[int, float]] = {}
    for fold in sorted(set(folds)):
        others = [row for row, own in zip(rows, folds, strict=True) if own != fold]
        fits[fold], thresholds[fold] = _fitted(others, rescale, independent=independent)
    truths = [row.truth for row in rows]
    plain = [rescale(row.output, 1.0) for row in rows]
    held = [
        rescale(row.output, fits[fold].temperature) for row, fold in zip(rows, folds, strict=True)
    ]
    fit, of_all = _fitted(rows, rescale, independent=independent)
    usual: list[Mapping[int, float]] = [{}] * len(rows)
    return Calibration(
        fit,
        of_all,
        _quality(plain, truths, usual, independent=independent),
        _quality(held, truths, [thresholds[fold] for fold in folds], independent=independent),
        tuple(one.temperature for one in fits.values()),
    )


def _fitted(
    rows: Sequence[LabelledOutput], rescale: Rescale, *, independent: bool
) -> tuple[Fit, dict[int, float]]:
    fit = fit_temperature(rows, rescale, independent=independent)
    if not independent:
        return fit, {}
    table = [rescale(row.output, fit.temperature) for row in rows]
    return fit, fit_thresholds(table, [row.truth for row in rows], len(table[0]))


def _quality(
    table: Sequence[Probabilities],
    truths: Truths,
    thresholds: Sequence[Mapping[int, float]],
    *,
    independent: bool,
) -> Quality:
    bins = bins_of(statements(table, truths, independent=independent))
    hits = mean_f1(table, truths, thresholds) if independent else accuracy(table, truths)
    loss = negative_log_likelihood(table, truths, independent=independent)
    return Quality(loss, calibration_error(bins), hits, bins)
