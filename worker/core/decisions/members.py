"""The labels of a decision as groups of the model's labels, and the probabilities of the groups.

Owns: renamed and merged labels, and the probability of a merged one.
Thread: any; pure.
Must not import: anything of worker but errors and core.records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.core.records import Activation
from worker.errors import SettingsError


@dataclass(frozen=True, slots=True)
class MergedLabels:
    """Labels, each of which stands for at least one of the model's.

    Attributes:
        names: the labels, in the order of the model's first ones.
        groups: for each name, the indexes of the model's labels that it stands for.
        exclusive: whether exactly one of the model's labels applies to a text.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    exclusive: bool

    @property
    def merges(self) -> bool:
        """True if a label stands for several of the model's."""
        return any(len(group) > 1 for group in self.groups)

    def probabilities(self, raw: Sequence[float]) -> tuple[float, ...]:
        """Return the probability of each label.

        Labels that exclude each other have the sum of their probabilities. Independent labels have
        the probability that at least one of them applies, 1 - (1 - p1)(1 - p2)...: a sum could
        exceed 1. It takes the labels as independent given the text, as such a model does.

        Args:
            raw: of the model's labels, in its order.
        """
        join = _sum if self.exclusive else _any
        return tuple(
            join([raw[index] for index in group]) if len(group) > 1 else raw[group[0]]
            for group in self.groups
        )


def _sum(probabilities: Sequence[float]) -> float:
    return min(1.0, math.fsum(probabilities))  # a softmax in float32 sums up to 1.0000001


def _any(probabilities: Sequence[float]) -> float:
    return 1 - math.prod(1 - p for p in probabilities)


def merged(
    labels: Sequence[str], names: Mapping[str, str], activation: Activation, path: str
) -> MergedLabels:
    """Return a model's labels by their new names.

    Args:
        labels: of the model.
        names: old name -> new name; a label that is not in it keeps its name.
        activation: of the model.
        path: of the settings, for messages.

    Raises:
        SettingsError: the names do not fit the labels.
    """
    _check(labels, names, path)
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(names.get(label, label), []).append(index)
    found = MergedLabels(
        tuple(groups), tuple(map(tuple, groups.values())), exclusive=activation != "sigmoid"
    )
    if found.merges and activation == "none":
        raise SettingsError(
            f"{path}.labels merges labels, and with model.activation = 'none' it is not known "
            "whether they exclude each other: set model.activation, or rename only"
        )
    if len(groups) == 1 and found.merges:
        raise SettingsError(
            f"{path}.labels merges all labels of the model into {found.names[0]!r}: keep at least two"
        )
    return found


def _check(labels: Sequence[str], names: Mapping[str, str], path: str) -> None:
    for old, new in names.items():
        if old not in labels:
            raise SettingsError(
                f"{path}.labels names {old!r}, which is no label of the model: {listed(labels)}"
            )
        if new in labels and new not in names:
            raise SettingsError(
                f"{path}.labels renames {old!r} to {new!r}, which is another label of the model: add "
                f'"{new}" = "{new}" to merge them, or choose another name'
            )


_MOST_NAMED = 30


def listed(labels: Sequence[str]) -> str:
    """Return the labels for a message."""
    more = len(labels) - _MOST_NAMED
    named = ", ".join(labels[:_MOST_NAMED])
    return f"its labels are {named}" + (f" and {more} more" if more > 0 else "")
