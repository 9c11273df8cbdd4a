"""Probabilities against those of float32, each text alone.

Owns: the comparison; pure.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Rows = Sequence[Sequence[float]]


class Difference(NamedTuple):
    """How far the probabilities of some texts are from the reference.

    Attributes:
        flips: texts with another most probable label; of a single output, the other side of 0.5.
        mean: mean absolute difference of a probability.
        largest: largest absolute difference of a probability.
    """

    flips: int
    mean: float
    largest: float


def difference(reference: Rows, rows: Rows) -> Difference:
    """Compare the probabilities [texts, labels] of the same texts, at least one."""
    pairs = list(zip(reference, rows, strict=True))
    differences = [abs(left - right) for pair in pairs for left, right in zip(*pair, strict=True)]
    return Difference(
        flips=sum(_label(left) != _label(right) for left, right in pairs),
        mean=sum(differences) / len(differences),
        largest=max(differences),
    )


def _label(row: Sequence[float]) -> int:
    return int(row[0] > 0.5) if len(row) == 1 else max(range(len(row)), key=lambda n: row[n])
