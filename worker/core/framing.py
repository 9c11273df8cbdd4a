"""Recognises values in the wire format of a schema registry, which is neither JSON nor text.

==========================  ===========================================================
Confluent and compatible    byte 0, the schema's id in 4 bytes, the payload
Confluent, id in a header   the header `__value_schema_id`: byte 1 and a UUID
AWS Glue                    byte 3, byte 0 or 5 (compression), a UUID, the payload
==========================  ===========================================================

Owns: the wire formats above.
Thread: any; pure functions.
Must not import: anything but core.
"""

from __future__ import annotations

import uuid

from worker.core.records import Headers

_ID_HEADER = "__value_schema_id"
# Confluent's, and the beginning of those of Apicurio's serializers: an id, a group, an encoding.
_VALUE_HEADERS = (_ID_HEADER, "apicurio.value.")
_UUID_BYTES = 16


def schema_of(value: bytes) -> str | None:
    """Return the id of the schema in a value's first bytes, or None."""
    if value[:1] == b"\0" and len(value) >= 5:
        number = int.from_bytes(value[1:5], "big", signed=True)
        return str(number) if number > 0 else None
    if value[:2] in (b"\3\0", b"\3\5") and len(value) >= 2 + _UUID_BYTES:
        return str(uuid.UUID(bytes=value[2 : 2 + _UUID_BYTES]))
    return None


def schema_in(headers: Headers) -> str | None:
    """Return the id of the schema in a header; the value may still be JSON, so try that first."""
    value = dict(headers).get(_ID_HEADER) or b""
    if value[:1] == b"\1" and len(value) == 1 + _UUID_BYTES:
        return str(uuid.UUID(bytes=value[1:]))
    return None


def describes_value(name: str) -> bool:
    """Return whether a header of this name tells the schema of the record's value."""
    return name.startswith(_VALUE_HEADERS)
