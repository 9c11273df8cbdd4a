"""Every option as an entry of the settings page: type, default, description and names.

Owns: the form of the page and its section titles.
Thread: the main thread.
Must not import: anything of worker but settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal, get_args, get_origin

from annotated_types import BaseMetadata

from benchmarks.docs.markdown import code
from worker.settings import FIRST_OPTIONS, Option, options

_SYMBOLS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}
_TYPES = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "Path": "path"}
_TITLES = {
    "": "Delivery, limits and timeouts",
    "kafka": "Cluster",
    "input": "Input",
    "output": "Output",
    "model": "Model",
    "shadow": "Shadow",
    "batch": "Micro-batches",
    "cache": "Cache of predictions",
    "drift": "Drift",
    "http": "HTTP",
    "tracing": "Tracing",
    "log": "Logs",
}


def page(known: tuple[Option, ...] | None = None) -> str:
    """Return links to the main options, then every option, grouped by its section."""
    links = (f"[`{path}`](#{_anchor(path)})" for path in FIRST_OPTIONS)
    parts = ["Most setups need only these: " + ", ".join(links) + "."]
    for section, members in groupby(options() if known is None else known, _section):
        name = f"`[{section}]`" if section else "Top level of the file"
        parts.append(f"## {_TITLES.get(section, section.capitalize())}\n\n{name}")
        parts += map(_entry, members)
    return "\n\n".join(parts)


def _section(option: Option) -> str:
    section, dot, _ = option.path.partition(".")
    return section if dot else ""


def _entry(option: Option) -> str:
    facts = "; ".join([_type(option), f"default {_default(option)}"])
    names = f"`{option.flag}` · " + code(option.env).replace(", ", " · ")
    return (
        f"### `{option.path}` {{ #{_anchor(option.path)} }}\n\n"
        f"{facts}\n{{ .option }}\n\n"
        f"{option.field.description or ''}\n\n"
        f"{_members(option)}"
        f"{names}\n{{ .option }}"
    )


def _members(option: Option) -> str:
    """Return a list of the members of each table, for an option that holds tables."""
    lines = (f"- `{name}`: {one.description or ''}\n" for name, one in option.members.items())
    return "".join(lines) + "\n" if option.members else ""


def _anchor(path: str) -> str:
    return path.replace(".", "-")


def _type(option: Option) -> str:
    choices = tuple(_choices(option.field.annotation))
    if choices:
        return f"one of {code(choices)}"
    return ", ".join([_type_name(option), *_bounds(option)])


def _type_name(option: Option) -> str:
    text = str(option.field.annotation)
    if "Pairs" in text:
        return "secret table" if option.secret else "table"
    if option.secret:
        return "secret string"
    if option.members:
        return "list of tables" if "tuple" in text else "table of tables"
    if "tuple" in text:
        return "list of strings"
    name = getattr(option.field.annotation, "__name__", "")
    known = (_TYPES[part] for part in (name, *_TYPES) if part in _TYPES and part in text)
    return next(known, "string")


def _bounds(option: Option) -> Iterator[str]:
    for bound in option.field.metadata:
        for name, symbol in _SYMBOLS.items():
            if isinstance(bound, BaseMetadata) and hasattr(bound, name):
                yield f"{symbol} {getattr(bound, name):,}"


def _choices(annotation: Any) -> Iterator[str]:
    """Members of a Literal, also of one in a union."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _default(option: Option) -> str:
    value = option.field.default
    if value is None:
        return "none"
    if value in ((), {}, ""):
        return "empty"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"
