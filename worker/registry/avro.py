"""Avro: reads bodies by their writer's schema.

Values are as they are encoded: a decimal is bytes, a date or a timestamp a number. A union has the
value of its branch, without the branch's name.

Owns: the reader's options.
Thread: `AvroSchema` is built on registry, and reads on poll.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fastavro

from schemas.dead_letter import DeadLetterReason
from worker.core.formats.walk import kind
from worker.errors import RecordRejected
from worker.registry.avro_guard import DEPTH, AvroGuard
from worker.registry.avro_types import SLACK, Reducer
from worker.registry.rejections import mismatch, unusable
from worker.registry.schema import RegisteredSchema, SchemaType


class AvroSchema:
    """A compiled schema.

    Args:
        schema: an Avro schema with the texts of its references.

    Raises:
        RecordRejected: it can't be used (`unusable_schema`).
    """

    type: SchemaType = "AVRO"

    def __init__(self, schema: RegisteredSchema) -> None:
        reducer = Reducer(schema)
        reduced = reducer.root()
        self._reduced, self._types = reduced.schema, reducer.types
        self._guarded = reduced.peak > SLACK or reduced.depth > DEPTH
        try:
            named: dict[str, dict[str, Any]] = {}
            self._schema = fastavro.parse_schema(reduced.schema, named)
            for name, symbols in reducer.symbols.items():
                named[name]["symbols"] = symbols
        except MemoryError:
            raise
        except Exception as error:
            raise unusable(f"no Avro schema: {type(error).__name__}") from error

    def parse(self, body: bytes) -> Mapping[str, Any]:
        """Return a record or map; raise RecordRejected for anything else."""
        if self._guarded:
            AvroGuard(body, self._types).check(self._reduced)
        source = io.BytesIO(body)
        try:
            value = fastavro.schemaless_reader(source, self._schema, None)
        except Exception as error:  # noqa: BLE001 (of many kinds; the text can quote the record)
            raise mismatch(f"Avro can't be read ({type(error).__name__})") from None
        if rest := len(body) - source.tell():
            raise mismatch(f"{rest} of {len(body)} bytes are left behind its last field")
        if not isinstance(value, dict):
            raise RecordRejected(
                DeadLetterReason.NOT_AN_OBJECT,
                f"Avro, but {kind(value)} where a record was expected",
            )
        return value

    def fields(self, payload: Any, path: tuple[str, ...]) -> Sequence[str]:  # noqa: ARG002
        """Return the names of the fields at a path, of all branches of a union."""
        schemas = list(self._branches(self._reduced))
        for step in path:
            schemas = [branch for schema in schemas for branch in self._step(schema, step)]
        return list(
            dict.fromkeys(field["name"] for schema in schemas for field in schema.get("fields", ()))
        )

    def _step(self, schema: Any, step: str) -> Iterator[Any]:
        for inner in (schema.get("items"), schema.get("values")):
            if inner is not None:
                yield from self._branches(inner)
        for field in schema.get("fields", ()):
            if field["name"] == step:
                yield from self._branches(field["type"])

    def _branches(self, schema: Any) -> Iterator[Any]:
        for branch in schema if isinstance(schema, list) else [schema]:
            definition = self._types.get(branch, {}) if isinstance(branch, str) else branch
            yield definition
