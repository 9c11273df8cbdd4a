"""Walks into parsed objects by a path, as `input.text_path` names one.

Owns: nothing.
Thread: any; pure.
Must not import: anything but errors and schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.dead_letter import DeadLetterReason
from worker.errors import RecordRejected


def member(payload: Any, path: tuple[str, ...]) -> Any:
    """Walk into objects by key and into arrays by index.

    Raises:
        RecordRejected: there is no such member.
    """
    node = payload
    for depth, step in enumerate(path):
        if isinstance(node, (dict, Mapping)) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isascii() and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            missing = ".".join(path[: depth + 1])
            raise RecordRejected(DeadLetterReason.PATH_MISSING, f"no member at {missing!r}")
    return node


def kind(value: Any) -> str:
    """Return what a value is in JSON, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")
