"""Checks an Avro body before fastavro reads it, where the schema gives no bound for its values.

fastavro recurses in C and has no limits: a list of some thousand nodes ends the process, and ten
bytes can be 2^60 nulls. This walk takes about a microsecond for each value.

Owns: the limits of a body.
Thread: poll; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.registry.avro_types import SLACK, VALUES_PER_BYTE
from worker.registry.rejections import mismatch

DEPTH: Final = 200  # levels of a value; fastavro takes less than 1 KiB of C stack for each
_LENGTHS: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class AvroGuard:
    """Walks over one body.

    Args:
        body: the encoded value.
        types: the schema's named types.
    """

    def __init__(self, body: bytes, types: Mapping[str, Any]) -> None:
        self._body, self._types = body, types
        self._at = 0
        self._values = VALUES_PER_BYTE * len(body) + SLACK
        self._walks: dict[str, Callable[[Any, int], None]] = {
            "array": self._array,
            "map": self._map,
            "record": self._record,
            "error": self._record,
            "enum": self._enum,
            "fixed": self._fixed,
        }

    def check(self, schema: Any) -> None:
        """Raise RecordRejected if the body does not match, or exceeds a limit."""
        self._value(schema, 0)

    def _value(self, schema: Any, level: int) -> None:
        self._values -= 1
        if level > DEPTH:
            raise mismatch(f"it nests more than {DEPTH} levels")
        if self._values < 0:
            raise mismatch("it has too many values for its size")
        if isinstance(schema, list):
            schema = schema[self._index(schema)]
        if isinstance(schema, str):
            if schema not in self._types:
                self._primitive(schema)
                return
            schema = self._types[schema]
        self._walks[schema["type"]](schema, level)

    def _primitive(self, kind: str) -> None:
        if kind in ("int", "long"):
            self._long()
        elif kind in ("bytes", "string"):
            self._skip(self._long())
        else:
            self._skip(_LENGTHS[kind])

    def _record(self, schema: Any, level: int) -> None:
        for field in schema["fields"]:
            self._value(field["type"], level + 1)

    def _array(self, schema: Any, level: int) -> None:
        while count := self._count():
            for _ in range(count):
                self._value(schema["items"], level + 1)

    def _map(self, schema: Any, level: int) -> None:
        while count := self._count():
            for _ in range(count):
                self._skip(self._long())
                self._value(schema["values"], level + 1)

    def _enum(self, schema: Any, level: int) -> None:  # noqa: ARG002
        self._index(schema["symbols"])

    def _fixed(self, schema: Any, level: int) -> None:  # noqa: ARG002
        self._skip(schema["size"])

    def _count(self) -> int:
        """Return the number of items of a block; a negative one precedes the block's bytes."""
        count = self._long()
        if count < 0:
            self._long()
        return abs(count)

    def _index(self, choices: list[Any]) -> int:
        index = self._long()
        if not 0 <= index < len(choices):
            raise mismatch(f"an index is {index} of {len(choices)}")
        return index

    def _skip(self, size: int) -> None:
        if not 0 <= size <= len(self._body) - self._at:
            raise mismatch(f"{size} bytes should follow byte {self._at} of {len(self._body)}")
        self._at += size

    def _long(self) -> int:
        """Read a zigzag varint (https://avro.apache.org/docs/1.12.0/specification/)."""
        at, value, shift = self._at, 0, 0
        for byte in self._body[at : at + 10]:
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                self._at = at
                return (value >> 1) ^ -(value & 1)
        raise mismatch(f"a number at byte {self._at} of {len(self._body)} does not end")
