"""The names of a model's outputs, as its config.json has them: few enough, and told apart.

Runs at start. Must not import torch or transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.core.visible import blank, excerpt
from worker.errors import ModelUnavailable

MOST = 100_000  # the largest sets of labels that are in use have some 30,000
LONGEST = 1_000  # characters; each result and each metric carries them
_SHOWN = 60


def refuse_many(config: Mapping[str, Any], name: str) -> None:
    """Refuse more labels than `MOST`, before transformers makes a name for each.

    Args:
        config: what config.json says.
        name: of the model.
    """
    for key, value in _members(config):
        number = value if key == "num_labels" else len(value) if _is_names(key, value) else 0
        if isinstance(number, int | float) and number > MOST:
            raise ModelUnavailable(
                f"{name} can't be used: {key} in its config.json stands for {number:,} labels, at "
                f"most {MOST:,} are taken: choose another model, or mend {key}"
            )


def label_names(stated: Mapping[int, Any], name: str) -> tuple[str, ...]:
    """The labels in the order of the model's outputs.

    Args:
        stated: `id2label` of the config.
        name: of the model.

    Raises:
        ModelUnavailable: they are not numbered from 0, or can't be told apart or written down.
    """
    if sorted(stated) != list(range(len(stated))) or not stated:
        raise ModelUnavailable(
            f"{name} can't be used: id2label in its config.json does not number the labels from 0"
        )
    labels: dict[str, int] = {}
    for number in range(len(stated)):
        label = stated[number]
        if fault := _fault(label, labels):
            raise ModelUnavailable(
                f"{name} can't be used: id2label in its config.json names output {number} "
                f"'{excerpt(str(label), _SHOWN)}', {fault}: mend it there"
            )
        labels[str(label)] = number
    return tuple(labels)


def _fault(label: Any, others: Mapping[str, int]) -> str:
    """Why this is no name for an output; empty where it is one."""
    if not isinstance(label, str | int | float):
        return "which is no string"
    text = str(label)
    if blank(text):
        return "in which there is nothing to read"
    if len(text) > LONGEST:
        return f"which has {len(text):,} characters, at most {LONGEST:,} are taken"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "which has half a character in it (a lone surrogate)"
    if text in others:
        return f"as output {others[text]}"
    return ""


def _is_names(key: str, value: Any) -> bool:
    return key == "id2label" and isinstance(value, dict | list)


def _members(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every member of it and of the objects in it, however deep they lie."""
    left = [config]
    while left:
        for key, value in left.pop().items():
            yield key, value
            if isinstance(value, dict) and key != "id2label":
                left.append(value)
