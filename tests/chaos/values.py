"""The values that a run's producer sends, and what a run's results must be: in JSON or Avro.

The producer's thread asks for values. Avro values have several writers' schemas, which change under
way; all of them are registered before the run, because a producer needs no registry afterwards.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import fastavro

from tests.support.registry import ApicurioRegistry

_UNREADABLE_JSON = (b"\xff\xfe", b"{", b"[]", b'{"text": 7}', b'{"text": " "}', b"{}")
_SCHEMAS = 30
_RECORDS_A_SCHEMA = 250
_UNKNOWN_ID = 2**31 - 1


class Values(Protocol):
    """Makes the values of input records, and reads results."""

    def text(self, number: int, text: str) -> bytes:
        """Return a value with this text."""

    def unreadable(self, number: int) -> bytes:
        """Return a value that has no text."""

    def result(self, value: bytes) -> Mapping[str, Any]:
        """Return the result in an output record's value; raise any exception if there is none."""


class JsonValues:
    """JSON in and out."""

    def text(self, number: int, text: str) -> bytes:
        return json.dumps({"id": number, "text": text}).encode()

    def unreadable(self, number: int) -> bytes:
        return _UNREADABLE_JSON[number % len(_UNREADABLE_JSON)]

    def result(self, value: bytes) -> Mapping[str, Any]:
        document: Mapping[str, Any] = json.loads(value)
        return document.get("classification", document)


class AvroValues:
    """Avro in and out, framed as Confluent's serializers do.

    Args:
        registry: gets the writers' schemas, and is asked for those of results.
        topic: names their subject.
    """

    def __init__(self, registry: ApicurioRegistry, topic: str) -> None:
        self._registry = registry
        texts = [json.dumps(_schema(version)) for version in range(_SCHEMAS)]
        self._ids = [registry.register(f"{topic}-value", text) for text in texts]
        self._writers = [fastavro.parse_schema(json.loads(text)) for text in texts]
        self._readers: dict[int, Any] = {}

    def text(self, number: int, text: str) -> bytes:
        # Two writers at a time: the old one goes on while the new one begins.
        version = min(number // _RECORDS_A_SCHEMA + number % 2, _SCHEMAS - 1)
        later = {f"later_{n}": n for n in range(1, version + 1)}
        document = {"id": number, "text": text, "price": number / 8, **later}
        return self._framed(version, document)

    def unreadable(self, number: int) -> bytes:
        whole = self.text(0, "cut")
        values = (
            b"{}",
            struct.pack(">bI", 0, _UNKNOWN_ID) + whole[5:],
            whole[:7],
            b"",
            self._framed(0, {"id": 0, "text": " ", "price": None}),
            self._framed(0, {"id": 0, "text": None, "price": None}),
        )
        return values[number % len(values)]

    def result(self, value: bytes) -> Mapping[str, Any]:
        magic, number = struct.unpack(">bI", value[:5])
        if magic:
            raise ValueError(f"not framed: {value[:5]!r}")
        if number not in self._readers:
            text = self._registry.ask("GET", f"/schemas/ids/{number}")["schema"]
            self._readers[number] = fastavro.parse_schema(json.loads(text))
        body = io.BytesIO(value[5:])
        document: Any = fastavro.schemaless_reader(body, self._readers[number], None)
        if body.read():
            raise ValueError("bytes after the result")
        found: Mapping[str, Any] = document.get("classification", document)
        return found

    def _framed(self, version: int, document: Mapping[str, Any]) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._writers[version], document)
        return struct.pack(">bI", 0, self._ids[version]) + body.getvalue()


def _schema(version: int) -> dict[str, Any]:
    """Return a writer's schema; a later one has a member more, and another order."""
    later = [{"name": f"later_{n}", "type": "int", "default": 0} for n in range(1, version + 1)]
    fields = [
        {"name": "id", "type": "long"},
        {"name": "text", "type": ["null", "string"]},
        {"name": "price", "type": ["null", "double"], "default": None},
        *later,
    ]
    ordered = fields[::-1] if version % 2 else fields
    return {"type": "record", "name": "Post", "namespace": "chaos", "fields": ordered}
