"""Names the subjects of output topics, and gets their schemas an id from the registry.

Owns: the subjects' names, and the frame that a schema's id makes.
Thread: any; a registration waits for the registry.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from schemas.dead_letter import DeadLetterReason
from worker.errors import RecordRejected, RegistryAway, RegistryDenied, SchemaRefused
from worker.registry.schema import RegisteredSchema
from worker.settings import RegistrySettings

# Returns the frame of values of a schema that go to a topic.
FrameOf = Callable[[RegisteredSchema, str], bytes]

_PACKAGE: Final = re.compile(r"^package\s+([\w.]+);", re.MULTILINE)
_MESSAGE: Final = re.compile(r"^message\s+(\w+)", re.MULTILINE)


class SchemaIds(Protocol):
    """The part of `RegistryClient` that gives ids."""

    def register(self, subject: str, schema: RegisteredSchema) -> int:
        """Return the id of a schema under a subject; register it if needed."""

    def look_up(self, subject: str, schema: RegisteredSchema) -> int | None:
        """Return the id of a schema under a subject, or None."""


class OutputSchemas:
    """Registers the schemas of results, or only looks them up.

    Args:
        ids: the registry.
        settings: whether to register, and how subjects are named.
    """

    def __init__(self, ids: SchemaIds, settings: RegistrySettings) -> None:
        self._ids, self._register = ids, settings.register
        self._strategy = settings.subject_name_strategy

    def frame(self, schema: RegisteredSchema, topic: str) -> bytes:
        """Return the bytes in front of each value of the schema.

        Raises:
            RegistryAway: the registry does not answer.
            SchemaRefused: the registry refuses the schema or the worker, or does not have it and
                must not be changed.
            RecordRejected: the subject has the schema's name, and it has none.
        """
        subject = subject_of(schema, topic, self._strategy)
        what = f"the schema of results in topic {topic!r} under subject {subject!r}"
        number = self._registered(subject, schema, what)
        if number is None:
            raise SchemaRefused(
                f"the schema registry does not have {what}, and registry.register is false: "
                "register it there, or set registry.register = true"
            )
        return prefix(number)

    def _registered(self, subject: str, schema: RegisteredSchema, what: str) -> int | None:
        try:
            if self._register:
                return self._ids.register(subject, schema)
            return self._ids.look_up(subject, schema)
        except RegistryDenied:
            raise
        except SchemaRefused as error:
            # It may have the schema all the same: a read-only registry refuses every registration.
            if self._register and (known := self._known(subject, schema)) is not None:
                return known
            raise SchemaRefused(
                f"the schema registry refuses {what}: {error}. Change the subject's compatibility "
                "level, or set another registry.subject_name_strategy or output.topic"
            ) from error

    def _known(self, subject: str, schema: RegisteredSchema) -> int | None:
        """Look a refused schema up; an error here must not hide the words of the refusal."""
        with suppress(RegistryAway, SchemaRefused):
            return self._ids.look_up(subject, schema)
        return None


def prefix(schema_id: int) -> bytes:
    """Return the frame of values whose schema has this id: byte 0, and the id in four bytes.

    https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/
    """
    return b"\0" + schema_id.to_bytes(4, "big")


def subject_of(schema: RegisteredSchema, topic: str, strategy: str) -> str:
    """Return the subject of the values of a topic, as Confluent's serializers name it.

    Args:
        schema: of the values.
        topic: that has them.
        strategy: `topic_name`, `record_name` or `topic_record_name`.

    Raises:
        RecordRejected: the schema has no name, and the strategy needs one.
    """
    if strategy == "topic_name":
        return f"{topic}-value"
    name = _name(schema)
    if not name:
        raise RecordRejected(
            DeadLetterReason.UNUSABLE_SCHEMA,
            f"the schema has no name, and registry.subject_name_strategy = {strategy!r} needs one",
        )
    return name if strategy == "record_name" else f"{topic}-{name}"


def _name(schema: RegisteredSchema) -> str | None:
    if schema.type == "PROTOBUF":
        names = (_PACKAGE.search(schema.text), _MESSAGE.search(schema.text))
        return ".".join(found[1] for found in names if found)
    root = json.loads(schema.text)
    if not isinstance(root, dict):
        return None
    return root.get("title") if schema.type == "JSON" else full_name(root, "")


def full_name(definition: dict[str, Any], namespace: str) -> str:
    """Return the full name of an Avro type; empty if it has no name.

    https://avro.apache.org/docs/1.12.0/specification/#names
    """
    name = str(definition.get("name") or "")
    space = str(definition.get("namespace", namespace) or "")
    return name if "." in name or not (name and space) else f"{space}.{name}"
