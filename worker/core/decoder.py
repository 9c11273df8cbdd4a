"""Decodes records: reads the text and the id out of a record's value.

Decoding never raises: an unreadable record becomes an `InvalidRecord` with a reason. JSON is parsed
strictly (RFC 8259: UTF-8, no NaN or Infinity); of duplicate keys the last one counts, as in Python
and JavaScript.

Owns: the reasons for which a record is unreadable.
Thread: main; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from schemas.dead_letter import DeadLetterReason
from worker.core.framing import schema_in, schema_of
from worker.core.records import InvalidRecord, RawRecord, WorkItem
from worker.core.visible import blank
from worker.errors import RecordRejected
from worker.settings import InputSettings


class Decoder:
    """Decodes records as set by `input.*`."""

    def __init__(self, settings: InputSettings) -> None:
        self._json = settings.format == "json"
        self._max_bytes = settings.max_bytes
        self._text_path = tuple(settings.text_path.split("."))
        self._id_path = tuple(settings.id_path.split("."))

    def decode(self, record: RawRecord) -> WorkItem | InvalidRecord:
        """Return the record with its text, or the reason why it has none; never raises."""
        try:
            return self._decode(record)
        except RecordRejected as error:
            rejection = _framed_by_header(record, error)
            return InvalidRecord(record, DeadLetterReason(rejection.reason), rejection.message)

    def _decode(self, record: RawRecord) -> WorkItem:
        if record.cut:
            raise RecordRejected(
                DeadLetterReason.TOO_LARGE,
                f"the record has {record.cut.record_bytes} bytes, max_inflight_bytes is "
                f"{record.cut.limit}: only its beginning was read",
            )
        value = self._accepted(record.value)
        if not self._json:
            return WorkItem(record, _checked_text(_characters(value)))
        payload = _object(value)
        text = _checked_text(_member(payload, self._text_path))
        return WorkItem(record, text, self._message_id(payload), payload)

    def _accepted(self, value: bytes | None) -> bytes:
        if value is None:
            raise RecordRejected(DeadLetterReason.NULL_VALUE, "the record has no value")
        if len(value) > self._max_bytes:
            raise RecordRejected(
                DeadLetterReason.TOO_LARGE,
                f"the value has {len(value)} bytes, input.max_bytes is {self._max_bytes}",
            )
        if schema := schema_of(value):  # valid UTF-8 in some cases, but not a text
            raise _framed(schema)
        return value

    def _message_id(self, payload: dict[str, Any]) -> str | None:
        try:
            message_id = _member(payload, self._id_path)
        except RecordRejected:
            return None
        if isinstance(message_id, bool) or not isinstance(message_id, str | int):
            return None  # in Python, true is an int
        return _well_formed(str(message_id))


def _framed_by_header(record: RawRecord, rejection: RecordRejected) -> RecordRejected:
    """Return the more exact reason for a value that is not JSON because a serializer wrote it."""
    unreadable = rejection.reason in (DeadLetterReason.NOT_UTF8, DeadLetterReason.NOT_JSON)
    schema = schema_in(record.headers) if unreadable else None
    return _framed(schema) if schema else rejection


def _framed(schema: str) -> RecordRejected:
    return RecordRejected(
        DeadLetterReason.SCHEMA_FRAMED,
        f"framed by a schema registry's serializer, schema {schema}: streamlabel reads plain JSON "
        'or text (input.format); change the producer (Connect: "value.converter" = JsonConverter, '
        "schemas.enable = false), or convert the topic first",
    )


def _characters(value: bytes) -> str:
    try:
        # A byte order mark is legal in UTF-8 and not part of the text.
        return value.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RecordRejected(
            DeadLetterReason.NOT_UTF8, f"not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def _object(value: bytes) -> dict[str, Any]:
    try:
        payload = from_json(value, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        # Python's parser is slower. It also reads byte order marks, lone surrogates and deep
        # nesting, and its errors name the place.
        payload = _parsed(_characters(value))
    if not isinstance(payload, dict):
        raise RecordRejected(
            DeadLetterReason.NOT_AN_OBJECT,
            f"JSON, but {_kind(payload)} where an object was expected",
        )
    return payload


def _parsed(decoded: str) -> Any:
    if not decoded.strip():
        raise RecordRejected(DeadLetterReason.EMPTY_TEXT, "the value is empty or blank")
    try:
        return _JSON.decode(decoded)
    except RecursionError:
        raise RecordRejected(DeadLetterReason.NOT_JSON, "JSON nested too deeply") from None
    except json.JSONDecodeError as error:
        # Without `str(error)`, which repeats the position; neither quotes the text.
        detail = f"{error.msg} at character {error.pos}"
        raise RecordRejected(DeadLetterReason.NOT_JSON, f"not JSON: {detail}") from None
    except ValueError:
        # Python does not convert integers of more than 4,300 digits.
        raise RecordRejected(
            DeadLetterReason.NOT_JSON, "not JSON: a number is out of range"
        ) from None


def _refuse_constant(name: str) -> None:
    raise RecordRejected(DeadLetterReason.NOT_JSON, f"not JSON: {name} is not a JSON number")


# Built once: with this argument, `json.loads` would build a decoder for each record.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _member(payload: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Walk into objects by key and into arrays by index."""
    node: Any = payload
    for depth, step in enumerate(path):
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isascii() and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            missing = ".".join(path[: depth + 1])
            raise RecordRejected(DeadLetterReason.PATH_MISSING, f"no member at {missing!r}")
    return node


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise RecordRejected(
            DeadLetterReason.NOT_A_STRING, f"the text is {_kind(text)}, not a string"
        )
    if not text[:1].isalnum() and blank(text):  # most texts begin with a letter
        raise RecordRejected(DeadLetterReason.EMPTY_TEXT, "the text is empty or blank")
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


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
