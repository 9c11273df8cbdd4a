"""Walks into parsed objects by a path, as `input.text_path` names one.

Owns: nothing.
Thread: any; pure.
Must not import: anything but errors and schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.dead_letter import DeadLetterReason
from worker.core.visible import excerpt
from worker.errors import RecordRejected

# Returns the names of the fields that a schema has at a path; none where it has no fields.
FieldNames = Callable[[tuple[str, ...]], Sequence[str]]

_NAMES = 12  # of fields in a message
_NAME_CHARACTERS = 60


def member(payload: Any, path: tuple[str, ...], fields: FieldNames | None = None) -> Any:
    """Walk into objects by key and into arrays by index.

    Args:
        payload: the parsed value.
        path: keys and indexes.
        fields: names for the message. Without a schema there are none, because the keys of an
            object can be data.

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
            raise RecordRejected(DeadLetterReason.PATH_MISSING, _missing(node, path, depth, fields))
    return node


def picked(payload: Any, paths: Sequence[tuple[str, ...]]) -> dict[str, Any] | None:
    """Return an object of these members alone, where there are any; None if no path is given."""
    if not paths:
        return None
    kept: dict[str, Any] = {}
    for path in paths:
        try:
            value = member(payload, path)
        except RecordRejected:
            continue
        node = kept
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = value
    return kept


def kind(value: Any) -> str:
    """Return what a value is, with its article; JSON's words where JSON has such a type."""
    names = {list: "an array", str: "a string", bool: "a boolean", bytes: "bytes"}
    if isinstance(value, Mapping):
        return "an object"
    return names.get(type(value), "null" if value is None else "a number")


def _missing(node: Any, path: tuple[str, ...], depth: int, fields: FieldNames | None) -> str:
    message = f"no member at {'.'.join(path[: depth + 1])!r}"
    if depth and not isinstance(node, (Mapping, list)):
        return f"{message}: {'.'.join(path[:depth])!r} is {kind(node)}"
    names = fields(path[:depth]) if fields else ()
    if not names:
        return message
    there = [excerpt(name, _NAME_CHARACTERS) for name in names[:_NAMES]]
    more = ["..."] if len(names) > _NAMES else []
    return f"{message}; fields there: {', '.join([*there, *more])}"
