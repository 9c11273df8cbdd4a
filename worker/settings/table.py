"""Options that are a table of names and values.

Owns: `Table` of strings, `ShareOrShares` of numbers, and their forms in a file, a flag and a
variable.
Thread: any; a table is not changed.
Must not import: anything of worker but `toml_values`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler, PlainValidator, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from worker.settings.toml_values import read_toml

Value = TypeVar("Value")


class _Fixed(dict[str, Value]):
    """Names and values. Settings are keys of dictionaries, so a table has a hash."""

    def __hash__(self) -> int:  # type: ignore[override] # a plain dict has none
        return hash(frozenset(self.items()))

    @classmethod
    def of(cls, value: Any) -> _Fixed[Value]:
        """Return a table from what a file, a flag or a variable has."""
        raise NotImplementedError  # pragma: no cover - each table has its own

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain = core_schema.plain_serializer_function_ser_schema(dict)
        return core_schema.no_info_plain_validator_function(cls.of, serialization=plain)


class Pairs(_Fixed[str]):
    """Names and strings."""

    @classmethod
    def of(cls, value: Any) -> Pairs:
        """Return a table from TOML as it is, or one from `a=1,b=2` in a flag or variable."""
        value = _read(value)
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise ValueError("must be a table of strings")
        return cls(value)


class Shares(_Fixed[float]):
    """Names and shares: numbers above 0, at most 1."""

    @classmethod
    def of(cls, value: Any) -> Shares:
        """Return a table from TOML as it is, or one from `a=0.1,b=0.2` in a flag or variable."""
        value = _read(value)
        if not value:
            raise ValueError("must not be empty: name a label, or give one number for all")
        return cls({name: _share(one, f"{name} = {one!r} ") for name, one in value.items()})


_SHARE = "a number above 0, at most 1"


def _share(value: Any, named: str = "") -> float:
    """Return a share from a number or its text."""
    try:
        number = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number <= 1:
        raise ValueError(f"{named}must be {_SHARE}")
    return number


def _share_or_shares(value: Any) -> float | Shares | None:
    if value is None or isinstance(value, Shares):
        return value
    if isinstance(value, dict) or (isinstance(value, str) and re.search("[={]", value)):
        return Shares.of(value)
    return _share(value)


def _read(value: Any) -> Any:
    """Return the table of a text, which is TOML or pairs; any other value as it is."""
    if not isinstance(value, str):
        return value
    return read_toml(value) if value.lstrip().startswith("{") else _split(value)


def _split(value: str) -> dict[str, str]:
    parts = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(separator for _, separator, _ in parts):
        raise ValueError("must be name=value pairs, comma-separated")
    table: dict[str, str] = {}
    for name, _, content in parts:
        if name.strip() in table:
            raise ValueError(f"has {name.strip()!r} twice: keep one of them")
        table[name.strip()] = content.strip()
    return table


Table = Annotated[
    Pairs, WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}})
]
_SHARE_SCHEMA: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
ShareOrShares = Annotated[
    float | Shares | None,
    PlainValidator(_share_or_shares),
    WithJsonSchema(
        {
            "anyOf": [
                _SHARE_SCHEMA,
                {"type": "object", "additionalProperties": _SHARE_SCHEMA, "minProperties": 1},
            ]
        }
    ),
]
