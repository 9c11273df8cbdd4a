"""Cuts a long text's tokens into windows that overlap, and combines their probabilities.

Probabilities are combined, never logits: a logit has no scale of its own, so that the mean of two
windows' logits would follow the window with the larger numbers. Besides, the cache, a temperature
and merged labels know only probabilities.

Owns: where a window begins and ends, and how several windows give one row of probabilities.
Thread: `cut` on tokenise, `combined` on infer; pure.
Must not import: core.records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from worker.settings import InputSettings
    from worker.settings.windows import Combine

Span = tuple[int, int]  # first token, and the one behind the last


class Extent(NamedTuple):
    """The tokens of a whole text, special tokens included once.

    Attributes:
        read: tokens that its windows cover; one in two windows counts once.
        total: tokens of the whole text.
    """

    read: int
    total: int


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How long texts are read.

    Attributes:
        stride: tokens that two neighbouring windows share.
        max_windows: most windows of a text.
        combine: how the windows' probabilities give those of the text.
    """

    stride: int
    max_windows: int
    combine: Combine

    @property
    def recipe(self) -> str:
        """A short name of the plan; two plans with one name give equal results."""
        return f"windows:{self.combine}:{self.stride}:{self.max_windows}"

    def cut(self, tokens: int, room: int, *, from_end: bool = False) -> list[Span]:
        """Return the windows that the model reads, in order; a short text has one.

        They are those of transformers' `tokenizer(..., truncation=True, stride=stride,
        return_overflowing_tokens=True)`: each begins `room - stride` tokens behind the one before,
        and the first that reaches the end is the last.

        Args:
            tokens: of the text, without special tokens.
            room: most tokens of a window, without special tokens; more than `stride`.
            from_end: whether the first window is the text's end, as for a tokenizer that truncates
                on the left.
        """
        step = room - self.stride
        behind = max(tokens - room, 0)  # tokens that the first window leaves
        windows = 1 + -(-behind // step)
        most = 1 if self.combine == "first" else self.max_windows
        starts = range(0, windows * step, step)[:most]
        spans = [(start, min(start + room, tokens)) for start in starts]
        return [(tokens - stop, tokens - start) for start, stop in spans] if from_end else spans


def window_plan(settings: InputSettings) -> WindowPlan | None:
    """Return the plan that the settings ask for, or None if they truncate or refuse long texts."""
    if settings.overflow != "windows":
        return None
    return WindowPlan(settings.stride, settings.max_windows, settings.combine)


def combined(
    plan: WindowPlan,
    rows: Sequence[Sequence[float]],
    tokens: Sequence[int],
    *,
    sums_to_one: bool,
) -> tuple[float, ...]:
    """Return a text's probabilities [labels] from those of its windows [windows][labels].

    Args:
        plan: names the combination.
        rows: of each window, in reading order; at least one.
        tokens: of each window, special tokens included: the weights of `length_weighted`.
        sums_to_one: whether one label of all applies. Largest probabilities of different windows
            add up to more than 1, so that `max` is then divided by its sum.
    """
    if len(rows) == 1:
        return tuple(rows[0])
    if plan.combine == "max":
        highest = [max(column) for column in zip(*rows, strict=True)]
        whole = fsum(highest) if sums_to_one else 1.0
        return tuple(value / whole for value in highest)
    weights = tokens if plan.combine == "length_weighted" else (1,) * len(rows)
    whole = sum(weights)
    return tuple(
        fsum(weight * value for weight, value in zip(weights, column, strict=True)) / whole
        for column in zip(*rows, strict=True)
    )
