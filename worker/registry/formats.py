"""Reads values whose schemas a registry has.

Owns: the choice between a framed value and a plain one.
Thread: poll.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any, Final, Protocol

from schemas.dead_letter import DeadLetterReason
from worker.core.formats.format import Document
from worker.core.formats.plain_json import parse_object
from worker.core.framing import ID_HEADER, foreign_frame, schema_frame
from worker.core.records import Frame, Headers
from worker.errors import RecordRejected
from worker.registry.compile import CompiledSchema
from worker.registry.schema import SchemaType

_TYPES: Final[dict[str, SchemaType]] = {
    "avro": "AVRO",
    "json_schema": "JSON",
    "protobuf": "PROTOBUF",
}


class Schemas(Protocol):
    """The schemas by key, an id or a GUID; `SchemaStore` never waits for one."""

    def lookup(self, key: int | str) -> CompiledSchema:
        """Return a schema; raise SchemaPending, or RecordRejected if it can't be used."""

    def enriched_frame(self, key: int | str, topic: str) -> bytes | None:
        """Return the frame of a record with the result added, if results are added."""

    def settled(self, key: Any) -> bool:
        """Return whether `lookup` has an answer, after it raised SchemaPending."""


class RegistryFormat:
    """Parses framed values.

    Args:
        format_: `input.format`: `avro`, `json_schema` or `protobuf`; `auto` for all of them, and
            plain JSON.
        schemas: finds the schema of a value.
    """

    has_members = True

    def __init__(self, format_: str, schemas: Schemas) -> None:
        self._format, self._schemas = format_, schemas
        self._type = _TYPES.get(format_)

    def parse(self, value: bytes, headers: Headers, topic: str = "") -> Document:
        """Parse a value by its schema; see `Format.parse`."""
        framed = schema_frame(value, headers)
        if framed is None:
            return self._unframed(value, headers)
        key, body_at, prefix = framed
        schema = self._schemas.lookup(key)
        if self._type not in (None, schema.type):
            raise RecordRejected(
                DeadLetterReason.SCHEMA_MISMATCH,
                f"schema {key} has the type {schema.type}, input.format is "
                f'"{self._format}": set it to "auto", or to the format of the topic',
            )
        payload = schema.parse(prefix + value[body_at:])
        frame = Frame(body_at, self._schemas.enriched_frame(key, topic))
        return Document(payload, frame, partial(schema.fields, payload))

    def settled(self, schema: Hashable) -> bool:
        """Return whether a record of a schema can be parsed, or rejected, by now."""
        return self._schemas.settled(schema)

    def _unframed(self, value: bytes, headers: Headers) -> Document:
        foreign = foreign_frame(value, headers)
        if self._type is None:
            try:
                return Document(parse_object(value))
            except RecordRejected:
                if not foreign:
                    raise
        if foreign:
            raise RecordRejected(DeadLetterReason.UNKNOWN_SCHEMA, foreign)
        raise RecordRejected(
            DeadLetterReason.NOT_FRAMED,
            "no schema's id: the value does not begin with byte 0 and an id of 4 bytes, and there "
            f'is no header {ID_HEADER}; if values are plain JSON, set input.format = "auto"',
        )
