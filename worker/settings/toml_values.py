"""Options that are lists or tables: their forms in a file, in a flag and in a variable.

Owns: `TOML` and `read_toml`, which read such a value from text; `FrozenTable`; `inline`, which
writes one as text.
Thread: any; a value is not changed.
Must not import: anything of worker but `section`.

A file has them as TOML's own lists and tables. A flag and a variable have the same value as text::

    --routes '[{label = "NEGATIVE", topic = "angry"}]'
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BeforeValidator

from worker.settings.section import Section

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL: Final = re.compile("\x7f")  # TOML wants it escaped, and JSON does not
_Value = TypeVar("_Value")


def read_toml(value: Any) -> Any:
    """Return the value of a TOML text; any other value as it is.

    Raises:
        ValueError: the text is not one TOML value.
    """
    if not isinstance(value, str):
        return value
    try:
        document = tomllib.loads(f"value = {value.strip()}")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"must be a TOML value: {_reason(error)}") from None
    if document.keys() != {"value"}:
        raise ValueError("must be one TOML value, and the text has further lines")
    return document["value"]


def _reason(error: Exception) -> str:
    return "too many brackets" if isinstance(error, RecursionError) else str(error)


TOML: Final = BeforeValidator(read_toml)


class FrozenTable(dict[str, _Value]):
    """A table whose values have a hash, as settings are keys of dictionaries."""

    def __hash__(self) -> int:  # type: ignore[override] # a plain dict has none
        return hash(frozenset(self.items()))


def plain(value: Any) -> Any:
    """Return a value as a TOML file would have it: tables hold only what was set."""
    if isinstance(value, Section):
        return {name: plain(one) for name, one in _written(value)}
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _written(section: Section) -> Iterator[tuple[str, Any]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name in section.model_fields_set and value is not None:
            yield field.alias or name, value


def inline(value: Any) -> str:
    """Return a value as TOML on one line, which `TOML` reads again."""
    value = plain(value)
    if isinstance(value, Mapping):
        members = ", ".join(f"{_key(name)} = {inline(one)}" for name, one in value.items())
        return f"{{{members}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    return _CONTROL.sub(r"\\u007f", json.dumps(value, ensure_ascii=False))
