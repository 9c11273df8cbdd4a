"""Temperature: one number that makes a model's probabilities agree with how often it is right.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (https://arxiv.org/abs/1706.04599):
the outputs z of the model are divided by T before the softmax. The most probable label stays.

The outputs are not needed. With p = softmax(z), softmax(z / T) is p ** (1 / T), divided by its sum;
and sigmoid(z / T) is the same of the pair (p, 1 - p), because logit(p) = z.

Owns: the temperature on probabilities.
Thread: any; pure.
Must not import: anything of worker.
"""

from __future__ import annotations

from collections.abc import Sequence


def softened(p: Sequence[float], temperature: float, *, exclusive: bool) -> tuple[float, ...]:
    """Return the probabilities at a temperature.

    A probability that was rounded to 0 or 1 stays: its output can't be known.

    Args:
        p: probabilities of the labels at the temperature 1.
        temperature: T, above 0; above 1 the model is less confident.
        exclusive: whether exactly one label applies, so that the sum is 1.
    """
    power = 1 / temperature
    if exclusive:
        return _scaled(p, power)
    return tuple(_scaled((one, 1 - one), power)[0] for one in p)


def _scaled(p: Sequence[float], power: float) -> tuple[float, ...]:
    most = max(p)  # divided first, so that a high power leaves at least one number above 0
    raised = [(one / most) ** power for one in p]
    total = sum(raised)
    return tuple(one / total for one in raised)
