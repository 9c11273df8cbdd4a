"""Decodes records: reads the text and the id out of a record's value.

An unreadable record becomes an `InvalidRecord` with a reason. A record whose schema is not known
yet raises `SchemaPending`, and is decoded again later.

Owns: the reasons for which a record has no text.
Thread: main; pure.
Must not import: kafka_io, registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.dead_letter import DeadLetterReason
from worker.core.formats.format import Format
from worker.core.formats.plain_json import JsonFormat
from worker.core.formats.plain_text import TextFormat
from worker.core.formats.walk import kind, member, picked
from worker.core.records import InvalidRecord, RawRecord, WorkItem
from worker.core.visible import blank
from worker.errors import RecordRejected
from worker.settings import InputSettings


class Decoder:
    """Decodes records as set by `input.*`.

    Args:
        settings: paths and bounds.
        format_: parses the values. Default: the plain format of the settings.
        fields: paths that conditions ask for.
    """

    def __init__(
        self,
        settings: InputSettings,
        format_: Format | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        self._format = format_ or plain_format(settings)
        self._max_bytes = settings.max_bytes
        self._text_path = tuple(settings.text_path.split("."))
        self._id_path = tuple(settings.id_path.split("."))
        self._fields = [tuple(path.split(".")) for path in fields]

    def decode(self, record: RawRecord) -> WorkItem | InvalidRecord:
        """Return the record with its text, or the reason why it has none.

        Raises:
            SchemaPending: the record's schema is not known yet.
        """
        try:
            return self._decode(record)
        except RecordRejected as error:
            return InvalidRecord(record, DeadLetterReason(error.reason), error.message)

    def _decode(self, record: RawRecord) -> WorkItem:
        if record.cut:
            raise RecordRejected(
                DeadLetterReason.TOO_LARGE,
                f"the record has {record.cut.record_bytes} bytes, max_inflight_bytes is "
                f"{record.cut.limit}: only its beginning was read",
            )
        value = self._accepted(record.value)
        payload, frame, fields = self._format.parse(value, record.headers, record.source.topic)
        if not self._format.has_members:
            return WorkItem(record, _checked_text(payload))
        text = _checked_text(member(payload, self._text_path, fields))
        message_id = self._message_id(payload)
        # A parsed message takes far more memory than its bytes, and only enriching needs all of it.
        whole = frame is None or frame.enriched
        kept = payload if whole else picked(payload, self._fields)
        return WorkItem(record, text, message_id, kept, frame)

    def _accepted(self, value: bytes | None) -> bytes:
        if value is None:
            raise RecordRejected(DeadLetterReason.NULL_VALUE, "the record has no value")
        if len(value) > self._max_bytes:
            raise RecordRejected(
                DeadLetterReason.TOO_LARGE,
                f"the value has {len(value)} bytes, input.max_bytes is {self._max_bytes}",
            )
        return value

    def _message_id(self, payload: Any) -> str | None:
        try:
            message_id = member(payload, self._id_path)
        except RecordRejected:
            return None
        if isinstance(message_id, bool) or not isinstance(message_id, str | int):
            return None  # in Python, true is an int
        return _well_formed(str(message_id))


def plain_format(settings: InputSettings) -> Format:
    """Return the format of values without a schema."""
    return TextFormat() if settings.format == "text" else JsonFormat()


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise RecordRejected(
            DeadLetterReason.NOT_A_STRING, f"the text is {kind(text)}, not a string"
        )
    if not text[:1].isalnum() and blank(text):  # most texts begin with a letter
        raise RecordRejected(DeadLetterReason.EMPTY_TEXT, "the text is empty or blank")
    return text


def _well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON escapes can produce and UTF-8 can't encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text, two special ones included.

    Four bytes of English are about one WordPiece token; in scripts without spaces, a character has
    three bytes and about one token. The estimate only closes batches; the tokeniser counts exactly.
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return 2 + size // 4
