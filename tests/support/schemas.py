"""Schemas and encoded values for tests."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro

from worker.errors import RecordRejected
from worker.registry.compile import CompiledSchema, compile_schema
from worker.registry.schema import RegisteredSchema, SchemaType


def compiled(
    type_: SchemaType, schema: Any, references: Mapping[str, Any] | None = None
) -> CompiledSchema:
    """Compile a schema; JSON of what is no text."""
    texts = {name: _text(text) for name, text in (references or {}).items()}
    return compile_schema(RegisteredSchema(type_, _text(schema), resolved=texts))


def avro_bytes(schema: Any, value: Any) -> bytes:
    """Encode a value as Avro."""
    target = io.BytesIO()
    fastavro.schemaless_writer(target, fastavro.parse_schema(schema), value)
    return target.getvalue()


def record(*fields: tuple[str, Any], name: str = "Post") -> dict[str, Any]:
    """Return the schema of an Avro record."""
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": field, "type": type_} for field, type_ in fields],
    }


def rejection(schema: CompiledSchema, body: bytes) -> RecordRejected:
    """Return the error of a body that is rejected."""
    try:
        value = schema.parse(body)
    except RecordRejected as error:
        return error
    raise AssertionError(f"read as {value}")


def _text(schema: Any) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)
