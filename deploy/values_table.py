"""The table of the chart's values for its README: each value, its default, its comment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from benchmarks.docs.markdown import table

_KEY: Final = re.compile(r"^( *)([A-Za-z]+):")


def values_table(values: str) -> str:
    """Return the table for the text of values.yaml."""
    comments = _comments(values)
    rows = (
        (f"`{path}`", f"`{_shown(value)}`", comments.get(path, ""))
        for path, value in _rows(yaml.safe_load(values), comments)
    )
    return table(("Value", "Default", "Meaning"), rows)


def _comments(values: str) -> dict[str, str]:
    """Return the comment right above each key, by the key's path."""
    found: dict[str, str] = {}
    path: list[str] = []
    lines: list[str] = []
    for line in values.splitlines():
        if line.lstrip().startswith("#"):
            lines.append(line.lstrip().removeprefix("#").strip())
        elif match := _KEY.match(line):
            path[len(match[1]) // 2 :] = [match[2]]
            if lines:
                found[".".join(path)] = " ".join(lines)
            lines = []
        else:
            lines = []
    return found


def _rows(node: dict[str, Any], comments: dict[str, str], head: str = "") -> Iterator[Any]:
    """Yield each value; a mapping whose keys have comments yields theirs."""
    for key, value in node.items():
        path = f"{head}{key}"
        described = any(name.startswith(f"{path}.") for name in comments)
        if isinstance(value, dict) and described:
            yield from _rows(value, comments, f"{path}.")
        else:
            yield path, value


def _shown(value: Any) -> str:
    return json.dumps(value)
