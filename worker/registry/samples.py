"""Writes and reads framed Avro values for `demo`, as a producer and a consumer would.

Owns: the sample's subjects; a registry that is not the demo's own gets rid of them at the end.
Thread: main, of `streamlabel demo`.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from worker.errors import Fatal
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.schema import RegisteredSchema
from worker.settings import RegistrySettings

_FRAME: Final = struct.Struct(">bI")  # byte 0 and the schema's id

SampleWriter = Callable[[Mapping[str, Any]], bytes]


class SampleRegistry:
    """Registers the schemas of samples, and asks for those of results.

    Args:
        url: the registry's URL.
        keep: leave the subjects there at the end.
    """

    def __init__(self, url: str, *, keep: bool) -> None:
        self._client = RegistryClient(RegistrySettings(url=url), Metrics())
        self._keep = keep
        self._readers: dict[int, Any] = {}
        self.subjects: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the subjects, unless they are kept, and close the connections."""
        if not self._keep:
            # An error here must not hide how the demo itself ended.
            with contextlib.suppress(Exception):
                for subject in sorted(self.subjects):
                    self._client.delete(subject)
        self._client.close()

    def writer(self, subject: str, schema: Mapping[str, Any]) -> SampleWriter:
        """Register an Avro schema, and return a function that encodes and frames an object.

        Raises:
            RegistryAway, RegistryDenied, SchemaRefused: as `RegistryClient` does.
        """
        text = json.dumps(schema)
        frame = _FRAME.pack(0, self._client.register(subject, RegisteredSchema("AVRO", text)))
        self.subjects.add(subject)
        parsed = parse_schema(json.loads(text))

        def write(document: Mapping[str, Any]) -> bytes:
            body = io.BytesIO()
            schemaless_writer(body, parsed, document)
            return frame + body.getvalue()

        return write

    def read(self, value: bytes) -> Mapping[str, Any]:
        """Return the object in a framed Avro value.

        Raises:
            Fatal: the registry does not have its schema.
            RegistryAway, RegistryDenied: as `RegistryClient` does.
        """
        _, number = _FRAME.unpack_from(value)
        if number not in self._readers:
            schema = self._client.schema(number)
            if schema is None:
                raise Fatal(f"the registry has no schema {number}, which a result names")
            self._readers[number] = parse_schema(json.loads(schema.text))
        document: Any = schemaless_reader(
            io.BytesIO(value[_FRAME.size :]), self._readers[number], None
        )
        read: Mapping[str, Any] = document
        return read
