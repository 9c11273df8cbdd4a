"""Checks the names of a model's outputs in its config.json: not too many, and distinct.

Owns: the limits on labels.
Thread: load, before a record is read.
Must not import: torch, transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.core.visible import blank, excerpt
from worker.errors import ModelUnavailable

MOST = 100_000  # the largest sets of labels in use have some 30,000
LONGEST = 1_000  # characters; every result and metric contains them
_SHOWN = 60


def refuse_many(config: Mapping[str, Any], name: str) -> None:
    """Reject more labels than `MOST`, before transformers makes a name for each.

    Args:
        config: content of config.json.
        name: the model's name.

    Raises:
        ModelUnavailable: there are too many.
    """
    for key, value in _members(config):
        number = value if key == "num_labels" else len(value) if _is_names(key, value) else 0
        if isinstance(number, int | float) and number > MOST:
            raise ModelUnavailable(
                f"{name} can't be used: {key} in its config.json defines {number:,} labels, and at "
                f"most {MOST:,} are supported: choose another model, or correct {key}"
            )


def label_names(stated: Mapping[int, Any], name: str) -> tuple[str, ...]:
    """Return the labels in the order of the model's outputs.

    Args:
        stated: `id2label` of the config.
        name: the model's name.

    Raises:
        ModelUnavailable: they are not numbered from 0, not distinct, or not valid text.
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
                f"'{excerpt(str(label), _SHOWN)}', {fault}: correct it there"
            )
        labels[str(label)] = number
    return tuple(labels)


def _fault(label: Any, others: Mapping[str, int]) -> str:
    """Return why an output can't have this name; empty if it can."""
    if not isinstance(label, str | int | float):
        return "which is not a string"
    text = str(label)
    if blank(text):
        return "which is blank"
    if len(text) > LONGEST:
        return f"which has {len(text):,} characters, and at most {LONGEST:,} are supported"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "which contains a lone surrogate"
    if text in others:
        return f"the name of output {others[text]}"
    return ""


def _is_names(key: str, value: Any) -> bool:
    return key == "id2label" and isinstance(value, dict | list)


def _members(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every member of the config and of the objects in it, at any depth."""
    todo = [config]
    while todo:
        for key, value in todo.pop().items():
            yield key, value
            if isinstance(value, dict) and key != "id2label":
                todo.append(value)
