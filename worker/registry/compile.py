"""Compiles schemas for the formats of records.

Owns: the choice of a module by the schema's type.
Thread: `compile_schema` registry, `CompiledSchema` poll.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from worker.registry.avro import AvroSchema
from worker.registry.json_schema import JsonSchema
from worker.registry.protobuf import ProtobufSchema
from worker.registry.schema import RegisteredSchema, SchemaType


class CompiledSchema(Protocol):
    """Parses the payloads of one schema."""

    @property
    def type(self) -> SchemaType:
        """The schema's type."""

    def parse(self, body: bytes) -> Mapping[str, Any]:
        """Parse a payload; that of Protobuf begins with the message's indexes.

        Raises:
            RecordRejected: the payload does not match the schema.
        """

    def fields(self, payload: Any, path: tuple[str, ...]) -> Sequence[str]:
        """Return the names that the schema has at a path of a payload; none if it has none."""


def compile_schema(schema: RegisteredSchema) -> CompiledSchema:
    """Compile a schema with all that it refers to.

    It can take seconds, for Protobuf in a process of its own.

    Raises:
        RecordRejected: the schema can't be used (`unusable_schema`).
        OSError, MemoryError: this machine can't compile it now.
    """
    return _TYPES[schema.type](schema)


_TYPES: Final[Mapping[SchemaType, Callable[[RegisteredSchema], CompiledSchema]]] = {
    "AVRO": AvroSchema,
    "JSON": JsonSchema,
    "PROTOBUF": ProtobufSchema,
}
