"""Options that are a table of names and values.

Owns: `Table`, and its forms in a file, a flag and a variable.
Thread: any; a table is not changed.
Must not import: anything of worker.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema


class Pairs(dict[str, str]):
    """Names and values. Settings are keys of dictionaries, so a table has a hash."""

    def __hash__(self) -> int:  # type: ignore[override] # a plain dict has none
        return hash(frozenset(self.items()))

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain = core_schema.plain_serializer_function_ser_schema(dict)
        return core_schema.no_info_plain_validator_function(_pairs, serialization=plain)


def _pairs(value: Any) -> Pairs:
    """Return a table from TOML as it is, or one from `a=1,b=2` in a flag or variable."""
    if isinstance(value, str):
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _, separator, _ in parts):
            raise ValueError("must be name=value pairs, comma-separated")
        return Pairs({name.strip(): content.strip() for name, _, content in parts})
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError("must be a table of strings")
    return Pairs(value)


Table = Annotated[
    Pairs, WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}})
]
