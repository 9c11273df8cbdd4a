"""Schemas as a registry has them.

Owns: `RegisteredSchema`.
Thread: any; the values are immutable.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

SchemaType = Literal["AVRO", "JSON", "PROTOBUF"]


class SchemaReference(NamedTuple):
    """A schema's reference to another one.

    Attributes:
        name: as the schema names it: an Avro full name, a `$ref`, or an imported file.
        subject, version: where the registry has it.
    """

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """One schema of the registry.

    Attributes:
        text: as registered; for Protobuf, `.proto` text or a base64 FileDescriptorProto.
        references: its direct references.
        resolved: the texts of all references, direct and indirect, by name; a schema comes after
            those that it refers to.
    """

    type: SchemaType
    text: str
    references: tuple[SchemaReference, ...] = ()
    resolved: Mapping[str, str] = field(default_factory=dict)
