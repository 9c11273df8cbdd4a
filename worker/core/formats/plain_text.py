"""Text without any structure: a value is the text, in UTF-8.

Owns: the reasons for which a value is not a text, one of them a schema registry's frame.
Thread: any; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from collections.abc import Hashable

from schemas.dead_letter import DeadLetterReason
from worker.core.formats.format import Document
from worker.core.framing import FIRST_BYTES, foreign_frame, schema_frame
from worker.core.records import Headers
from worker.errors import RecordRejected


class TextFormat:
    """Parses values that are the text alone."""

    has_members = False

    def parse(self, value: bytes, headers: Headers, topic: str = "") -> Document:  # noqa: ARG002
        """Return the text; raise RecordRejected for values that are not UTF-8, or framed."""
        refuse_framed(value)
        try:
            return Document(characters(value))
        except RecordRejected as error:
            raise framed_by_header(value, headers, error) from None

    def settled(self, schema: Hashable) -> bool:  # noqa: ARG002
        """Return True: there is no schema."""
        return True


def refuse_framed(value: bytes) -> None:
    """Raise RecordRejected if a schema registry's serializer wrote the value."""
    if value[:1] in FIRST_BYTES and (framed := _framed(value)):
        raise framed


def framed_by_header(value: bytes, headers: Headers, rejection: RecordRejected) -> RecordRejected:
    """Return the more exact reason for a value that is not JSON because a serializer wrote it."""
    unreadable = rejection.reason in (DeadLetterReason.NOT_UTF8, DeadLetterReason.NOT_JSON)
    return (_framed(value, headers) if unreadable else None) or rejection


def characters(value: bytes) -> str:
    """Return the text of UTF-8 bytes; raise RecordRejected for others."""
    try:
        # A byte order mark is legal in UTF-8 and not part of the text.
        return value.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RecordRejected(
            DeadLetterReason.NOT_UTF8, f"not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def _framed(value: bytes, headers: Headers = ()) -> RecordRejected | None:
    message = foreign_frame(value, headers)
    if frame := schema_frame(value, headers):
        message = (
            f"framed by a schema registry's serializer, schema {frame.schema}: set registry.url "
            'and input.format = "auto" (or "avro", "json_schema", "protobuf")'
        )
    return RecordRejected(DeadLetterReason.SCHEMA_FRAMED, message) if message else None
