"""Writes a model as an Avro schema.

Integers are longs, as a Python integer has no size. Times have milliseconds, as those of the
worker's clock have.

Owns: the Avro types of members.
Thread: any; pure.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas.members import Model, ModelMember, description, is_model, members, wire_name

NAMESPACE = "streamlabel"

_TYPES: dict[type, Any] = {
    str: "string",
    bool: "boolean",
    int: "long",
    float: "double",
    datetime: {"type": "long", "logicalType": "timestamp-millis"},
}


def avro_schema(model: Model) -> dict[str, Any]:
    """Return the schema of a record; its nested records are defined where they occur first."""
    return _record(model, set())


def _record(model: Model, defined: set[Model]) -> dict[str, Any]:
    defined.add(model)
    return {
        "type": "record",
        "name": wire_name(model),
        "namespace": NAMESPACE,
        "doc": description(model),
        "fields": [_field(member, defined) for member in members(model)],
    }


def _field(member: ModelMember, defined: set[Model]) -> dict[str, Any]:
    kind = _type(member.kind, defined)
    if member.repeated:
        kind = {"type": "array", "items": kind}
    if member.mapped:
        values = ["null", kind] if member.optional else kind
        return {
            "name": member.name,
            "type": {"type": "map", "values": values},
            "doc": member.description,
        }
    field = {"name": member.name, "type": kind, "doc": member.description}
    # A default must be of the union's first type.
    return field | {"type": ["null", kind], "default": None} if member.optional else field


def _type(kind: Any, defined: set[Model]) -> Any:
    if not is_model(kind):
        return _TYPES[kind]
    return wire_name(kind) if kind in defined else _record(kind, defined)
