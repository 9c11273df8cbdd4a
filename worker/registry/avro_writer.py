"""Writes values by an Avro schema: only the types of our own schemas, faster than fastavro.

A schema is compiled to one function for each of its types. A test compares with fastavro.

https://avro.apache.org/docs/1.12.0/specification/#binary-encoding

Owns: the encoding of each type.
Thread: any; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Write = Callable[[Any], bytes]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SMALL: Final = tuple(bytes((number << 1,)) for number in range(64))


def compiled(schema: Any) -> Write:
    """Return the function that encodes values of a schema.

    Args:
        schema: made of records, arrays, maps, unions of null and a type, and the types of
            `_WRITES`. A record that is defined may be named by later members.
    """
    return _compiled(schema, dict(_WRITES))


def _compiled(schema: Any, known: dict[str, Write]) -> Write:
    if isinstance(schema, list):
        return _optional(_compiled(schema[1], known))
    if isinstance(schema, str):
        return known[schema]
    if schema["type"] == "record":
        fields = [(field["name"], _compiled(field["type"], known)) for field in schema["fields"]]
        return known.setdefault(schema["name"], _record(fields))
    if schema["type"] == "array":
        return _array(_compiled(schema["items"], known))
    if schema["type"] == "map":
        return _map(_compiled(schema["values"], known), _absent(schema["values"]))
    return known[schema["logicalType"]]


def _record(fields: list[tuple[str, Write]]) -> Write:
    def write(value: Any) -> bytes:
        return b"".join([write_field(value[name]) for name, write_field in fields])

    return write


def _array(write_item: Write) -> Write:
    def write(value: Any) -> bytes:
        if not value:
            return b"\0"
        return b"".join([_long(len(value)), *map(write_item, value), b"\0"])

    return write


def _map(write_value: Write, absent: dict[str, None]) -> Write:
    """Return the function that encodes a map.

    Args:
        write_value: encodes a value.
        absent: the members that a value may lack, as null.
    """

    def write(value: Any) -> bytes:
        if not value:
            return b"\0"
        pairs = (
            _string(name) + write_value({**absent, **one} if absent and one else one)
            for name, one in value.items()
        )
        return b"".join([_long(len(value)), *pairs, b"\0"])

    return write


def _absent(schema: Any) -> dict[str, None]:
    """Return the members of a record, or of null and a record, that may be null."""
    record = schema[1] if isinstance(schema, list) else schema
    fields = record["fields"] if isinstance(record, dict) else ()
    return {field["name"]: None for field in fields if isinstance(field["type"], list)}


def _optional(write_value: Write) -> Write:
    def write(value: Any) -> bytes:
        return b"\0" if value is None else b"\2" + write_value(value)

    return write


def _long(value: int) -> bytes:
    if 0 <= value < 64:
        return _SMALL[value]
    rest = (value << 1) ^ (value >> 63)
    written = bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    written.append(rest)
    return bytes(written)


def _string(value: str) -> bytes:
    encoded = value.encode()
    return _long(len(encoded)) + encoded


@functools.lru_cache(maxsize=16)  # the results of a micro-batch have one time
def _moment(value: datetime) -> bytes:
    return _long((value - _EPOCH) // _MILLISECOND)


_WRITES: Final[dict[str, Write]] = {
    "string": _string,
    "boolean": (b"\0", b"\1").__getitem__,
    "long": _long,
    "double": struct.Struct("<d").pack,
    "timestamp-millis": _moment,
}
