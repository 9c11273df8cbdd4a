"""Text without any structure: a value is the text, in UTF-8.

Owns: the reasons for which a value is not a text, one of them a schema registry's frame.
Thread: any; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from collections.abc import Hashable

from schemas.dead_letter import DeadLetterReason
from worker.core.formats.format import Document
from worker.core.framing import schema_in, schema_of
from worker.core.records import Headers
from worker.errors import RecordRejected


class TextFormat:
    """Parses values that are the text alone."""

    has_members = False

    def parse(self, value: bytes, headers: Headers) -> Document:
        """Return the text; raise RecordRejected for values that are not UTF-8, or framed."""
        refuse_framed(value)
        try:
            return Document(characters(value))
        except RecordRejected as error:
            raise framed_by_header(headers, error) from None

    def settled(self, schema: Hashable) -> bool:  # noqa: ARG002
        """Return True: there is no schema."""
        return True


def refuse_framed(value: bytes) -> None:
    """Raise RecordRejected if a schema registry's serializer wrote the value."""
    if schema := schema_of(value):
        raise _framed(schema)


def framed_by_header(headers: Headers, rejection: RecordRejected) -> RecordRejected:
    """Return the more exact reason for a value that is not JSON because a serializer wrote it."""
    unreadable = rejection.reason in (DeadLetterReason.NOT_UTF8, DeadLetterReason.NOT_JSON)
    schema = schema_in(headers) if unreadable else None
    return _framed(schema) if schema else rejection


def characters(value: bytes) -> str:
    """Return the text of UTF-8 bytes; raise RecordRejected for others."""
    try:
        # A byte order mark is legal in UTF-8 and not part of the text.
        return value.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RecordRejected(
            DeadLetterReason.NOT_UTF8, f"not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def _framed(schema: str) -> RecordRejected:
    return RecordRejected(
        DeadLetterReason.SCHEMA_FRAMED,
        f"framed by a schema registry's serializer, schema {schema}: set registry.url and "
        'input.format = "auto" (or "avro", "json_schema", "protobuf")',
    )
