"""Recognises values in the wire format of a schema registry, which is neither JSON nor text.

========================  ====================================================================
Confluent and compatible  byte 0, the schema's id in 4 bytes, the payload
Confluent, in a header    `__value_schema_id`: byte 1 and a GUID of 16 bytes, and for Protobuf the
                          message's indexes; or byte 0 and the id. The value is the payload alone.
========================  ====================================================================

A Protobuf payload begins with the message's indexes, unless the header has them
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/). Other
wire formats are only named.

Owns: the wire formats.
Thread: any; pure functions.
Must not import: anything but core.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

from worker.core.records import Headers

ID_HEADER = "__value_schema_id"
# Confluent's, and the beginning of those of Apicurio's serializers: an id, a group, an encoding.
_VALUE_HEADERS = (ID_HEADER, "apicurio.value.")
_GUID_END = 1 + 16
_ID_END = 1 + 4
_LAST_ID = 2**31 - 1
FIRST_BYTES = (b"\0", b"\3", b"\xc3", b"O")  # of framed values
_CONVERT = "have the producer use Confluent's serializers, or convert the topic first"


class SchemaFrame(NamedTuple):
    """The schema of a value, and the place of its payload.

    Attributes:
        schema: the id, or the GUID as a string.
        body_at: index of the payload's first byte in the value.
        prefix: bytes of the payload that precede the value's, because they are in a header.
    """

    schema: int | str
    body_at: int
    prefix: bytes = b""


def schema_frame(value: bytes, headers: Headers) -> SchemaFrame | None:
    """Return the frame of a value that a Confluent serializer wrote, or None."""
    if headers and (header := dict(headers).get(ID_HEADER)):
        if header[0] == 1 and len(header) >= _GUID_END:
            guid = str(uuid.UUID(bytes=header[1:_GUID_END]))
            return SchemaFrame(guid, 0, header[_GUID_END:])
        if number := _number(header):
            return SchemaFrame(number, 0, header[_ID_END:])
    number = _number(value)
    return SchemaFrame(number, _ID_END) if number else None


def foreign_frame(value: bytes, headers: Headers = ()) -> str | None:
    """Return the name of another known wire format and the remedy, or None."""
    if value[:2] in (b"\3\0", b"\3\5") and len(value) >= 2 + 16:
        guid = uuid.UUID(bytes=value[2 : 2 + 16])
        return f"framed by AWS Glue's serializer, schema {guid}: {_CONVERT}"
    if value[:5] == bytes(5) and len(value) >= 1 + 8:
        number = int.from_bytes(value[1:9], "big")
        return (
            f"framed by Apicurio's serializer with an id of 8 bytes, {number}: set the producer's "
            "apicurio.registry.as-confluent = true"
        )
    if value[:2] == b"\xc3\1" and len(value) >= 2 + 8:
        fingerprint = value[2:10][::-1].hex()
        return f"Avro's single-object encoding, schema fingerprint {fingerprint}: {_CONVERT}"
    if value[:4] == b"Obj\1":
        return "an Avro file with many records: the producer should send its records one by one"
    return _foreign_headers(headers)


def _foreign_headers(headers: Headers) -> str | None:
    names = dict(headers)
    if names.get("apicurio.value.globalId") or names.get("apicurio.value.contentId"):
        return (
            "Apicurio's serializer wrote the schema's id into a header: set the producer's "
            "apicurio.registry.headers.enabled = false and apicurio.registry.as-confluent = true"
        )
    if (names.get("content-type") or b"").startswith(b"avro/binary+"):
        return f"the content type of Azure's serializer (avro/binary): {_CONVERT}"
    return None


def _number(framed: bytes) -> int | None:
    """Return the id behind byte 0: Confluent's registry counts from 1, in Java's `int`."""
    if len(framed) < _ID_END or framed[0]:
        return None
    number = int.from_bytes(framed[1:_ID_END], "big")
    return number if 0 < number <= _LAST_ID else None


def describes_value(name: str) -> bool:
    """Return whether a header of this name tells the schema of the record's value."""
    return name.startswith(_VALUE_HEADERS)
