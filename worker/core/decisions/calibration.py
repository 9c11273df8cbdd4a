"""Finds the temperature under which a model's probabilities agree best with labelled texts.

The temperature divides the logits before softmax or sigmoid, and is the one number that minimises
the negative log-likelihood of the labels (Guo, Pleiss, Sun and Weinberger, "On Calibration of
Modern Neural Networks", ICML 2017, section 4.2). It never changes which label is most probable. A
temperature above 1 makes an overconfident model more cautious, one below 1 does the reverse.

Owns: the objective and the search.
Thread: main, in `streamlabel calibrate`; pure.
Must not import: any other module of the worker but settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from worker.settings.decision import LEAST_TEMPERATURE, MOST_TEMPERATURE

Probabilities = Sequence[float]
# The model's output for a text, and a temperature -> the probabilities that a worker states.
Rescale = Callable[[Any, float], Probabilities]

_FLOOR: Final = 1e-12  # keeps the logarithm of a probability of 0 finite
_STEPS: Final = 12  # of the coarse search
_PRECISION: Final = 0.002  # of the temperature's logarithm
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class LabelledOutput:
    """A text's labels, and what the model returned for it.

    Attributes:
        output: the first argument of a `Rescale`.
        truth: indices of the labels that people gave it; exactly one if labels exclude each other.
    """

    output: Any
    truth: frozenset[int]


class Fit(NamedTuple):
    """A temperature.

    Attributes:
        temperature: from the least to the most that a worker takes, with three significant digits.
        loss: the mean negative log-likelihood with it, nats.
        at_bound: whether the best temperature lies at or beyond one of the bounds.
    """

    temperature: float
    loss: float
    at_bound: bool


def negative_log_likelihood(
    table: Sequence[Probabilities], truths: Sequence[frozenset[int]], *, independent: bool
) -> float:
    """Return the mean negative log-likelihood of the labels, in nats.

    It is the mean of -ln(p of the true label) over the texts if labels exclude each other. If they
    are independent, it is the mean of the binary cross-entropy over all texts and labels.

    Args:
        table: probabilities [texts, labels], at least one text.
        truths: the true labels of each text.
        independent: whether each label has a probability of its own.
    """
    loss = _binary if independent else _exclusive
    pairs = zip(table, truths, strict=True)
    return math.fsum(loss(row, truth) for row, truth in pairs) / len(table)


def fit_temperature(rows: Sequence[LabelledOutput], rescale: Rescale, *, independent: bool) -> Fit:
    """Return the temperature that minimises the negative log-likelihood of the rows.

    A coarse search finds the valley, because merged labels may make more than one, and a
    golden-section search (Kiefer, "Sequential Minimax Search for a Maximum", 1953) its lowest
    point. Both go by the logarithm of the temperature.

    Args:
        rows: at least one.
        rescale: the worker's own computation.
        independent: whether each label has a probability of its own.
    """
    truths = [row.truth for row in rows]

    def loss(logarithm: float) -> float:
        temperature = math.exp(logarithm)
        table = [rescale(row.output, temperature) for row in rows]
        return negative_log_likelihood(table, truths, independent=independent)

    low, high = math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE)
    width = (high - low) / _STEPS
    best = min(range(_STEPS + 1), key=lambda step: loss(low + step * width))
    found = _golden_section(
        loss, max(low, low + (best - 1) * width), min(high, low + (best + 1) * width)
    )
    at_bound = min(found - low, high - found) < 2 * _PRECISION
    temperature = min(MOST_TEMPERATURE, max(LEAST_TEMPERATURE, float(f"{math.exp(found):.3g}")))
    return Fit(temperature, loss(math.log(temperature)), at_bound)


def _golden_section(loss: Callable[[float], float], low: float, high: float) -> float:
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > _PRECISION:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return (low + high) / 2


def _exclusive(row: Probabilities, truth: frozenset[int]) -> float:
    (true,) = truth
    return -math.log(max(row[true], _FLOOR))


def _binary(row: Probabilities, truth: frozenset[int]) -> float:
    return -math.fsum(
        math.log(max(p if label in truth else 1 - p, _FLOOR)) for label, p in enumerate(row)
    ) / len(row)
