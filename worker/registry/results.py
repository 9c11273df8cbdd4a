"""Results as a schema registry's serializers write them: Avro, JSON Schema and Protobuf.

A value is a frame, which tells the schema's id, and a body. A result that is added to its record
is the frame of the enriched schema, the record's body, and the result's own encoding.

Owns: the bodies of results, and the frames of output topics.
Thread: `add` poll, before the topic's first result; the rest publish.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass
from pydantic_core import to_json

from schemas.export import rendered
from schemas.forms import PLAIN, ResultForm
from schemas.members import members, wire_name
from worker.core.formats.plain_json import enriched_object
from worker.core.records import Frame, WorkItem
from worker.registry.avro_writer import compiled
from worker.registry.protobuf_files import file_descriptor
from worker.registry.schema import RegisteredSchema, SchemaType
from worker.registry.subjects import FrameOf

_TEXTS: Final = rendered()
_FILES: Final[dict[SchemaType, str]] = {
    "AVRO": "avsc",
    "JSON": "schema.json",
    "PROTOBUF": "proto",
}


class FramedResults(ABC):
    """Serialises results in one format.

    Args:
        frame_of: registers the schema of results. Default: a frame of the same size, to measure
            results without a registry.
        form: of the results.

    Attributes:
        schema: of the results.
    """

    type: SchemaType

    def __init__(self, frame_of: FrameOf | None = None, form: ResultForm = PLAIN) -> None:
        self._frame_of = frame_of or _no_frame
        self._form, self.schema = form, result_schema(self.type, form)
        self._frames: dict[str, bytes] = {}

    def add(self, topic: str) -> None:
        """Register the schema of results for an output topic, before its first result.

        Raises:
            RegistryAway: the registry does not answer; call again.
            SchemaRefused: it refuses the schema.
        """
        if topic not in self._frames:
            self._frames[topic] = self._frame_of(self.schema, topic)

    def classification(self, document: Mapping[str, Any], topic: str) -> bytes:
        """Return a result."""
        return self._frames[topic] + self._encoded(document)

    def enriched(self, item: WorkItem, document: Mapping[str, Any], topic: str) -> bytes:  # noqa: ARG002
        """Return the record's value with the result added."""
        body_at, frame = item.frame or Frame(0)
        body = (item.record.value or b"")[body_at:]
        return (frame or b"") + self._added(body, item.payload or {}, document)

    @abstractmethod
    def _encoded(self, document: Mapping[str, Any]) -> bytes:
        """Return a result without its frame."""

    @abstractmethod
    def _added(self, body: bytes, payload: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
        """Return a record's body with the result added."""


class AvroResults(FramedResults):
    """Serialises results as Avro."""

    type = "AVRO"

    def __init__(self, frame_of: FrameOf | None = None, form: ResultForm = PLAIN) -> None:
        super().__init__(frame_of, form)
        self._write = compiled(json.loads(self.schema.text))
        self._absent = absent_members(form)

    def _encoded(self, document: Mapping[str, Any]) -> bytes:
        return self._write({**self._absent, **document} if self._absent else document)

    def _added(self, body: bytes, payload: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:  # noqa: ARG002
        # A record's encoding is that of its fields, in order, and the result is the last field
        # (https://avro.apache.org/docs/1.12.0/specification/#records).
        return body + self._encoded(document)


class JsonSchemaResults(FramedResults):
    """Serialises results as JSON with a schema."""

    type = "JSON"

    def _encoded(self, document: Mapping[str, Any]) -> bytes:
        return to_json(document)

    def _added(self, body: bytes, payload: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
        return enriched_object(body, payload, document, self._form.member)


class ProtobufResults(FramedResults):
    """Serialises results as Protobuf."""

    type = "PROTOBUF"

    def __init__(self, frame_of: FrameOf | None = None, form: ResultForm = PLAIN) -> None:
        super().__init__(frame_of, form)
        self._message = result_message(form)

    def _encoded(self, document: Mapping[str, Any]) -> bytes:
        seconds, milliseconds = divmod((document["processed_at"] - _EPOCH) // _MILLISECOND, 1000)
        moment = {"seconds": seconds, "nanos": milliseconds * 1_000_000}
        message = self._message(**{**document, "processed_at": moment} | _without_nulls(document))
        return _FIRST_MESSAGE + bytes(message.SerializeToString())

    def _added(self, body: bytes, payload: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
        raise NotImplementedError("the settings refuse to add to Protobuf")


FORMATS: Final[Mapping[str, type[FramedResults]]] = {
    "avro": AvroResults,
    "json_schema": JsonSchemaResults,
    "protobuf": ProtobufResults,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST_MESSAGE: Final = b"\0"  # the message's indexes in its file; [0] is written so
_FRAME_BYTES: Final = 5
_SAID: Final = "classifications"


@functools.cache
def result_schema(type_: SchemaType, form: ResultForm = PLAIN) -> RegisteredSchema:
    """Return the schema of results."""
    return RegisteredSchema(type_, _TEXTS[f"{form.name}.{_FILES[type_]}"])


@functools.cache
def result_message(form: ResultForm = PLAIN) -> Any:
    """Return the class of the message that a Protobuf result is."""
    messages = file_descriptor(result_schema("PROTOBUF", form)).message_types_by_name
    return GetMessageClass(messages[wire_name(form.model)])


def absent_members(form: ResultForm) -> dict[str, None]:
    """Return the members that a result of this form may lack, each as null."""
    plain = PLAIN.model.model_fields
    return {one.name: None for one in members(form.model) if one.optional and one.name not in plain}


def _without_nulls(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the map of several models without those that say nothing: Protobuf has no null."""
    if (said := document.get(_SAID)) is None:
        return {}
    return {_SAID: {name: one for name, one in said.items() if one is not None}}


def _no_frame(schema: RegisteredSchema, topic: str) -> bytes:  # noqa: ARG001
    return bytes(_FRAME_BYTES)
