"""Bytes to work: reads the text out of a record. Pure; called on the poll thread.

Decoding never raises: what can't be read becomes an `InvalidRecord` with its own reason. JSON is
taken strictly (RFC 8259: UTF-8, no NaN or Infinity); of duplicate keys the last one counts, as
in Python and JavaScript.
"""

from __future__ import annotations

import json
from typing import Any

from schemas.dead_letter import DeadLetterReason
from worker.core.framing import schema_in, schema_of
from worker.core.records import InvalidRecord, RawRecord, WorkItem
from worker.core.visible import blank
from worker.errors import RecordRejected
from worker.settings import InputSettings


class Decoder:
    """Reads texts out of raw records as `input.*` says."""

    def __init__(self, settings: InputSettings) -> None:
        self._json = settings.format == "json"
        self._max_bytes = settings.max_bytes
        self._text_path = tuple(settings.text_path.split("."))
        self._id_path = tuple(settings.id_path.split("."))

    def decode(self, record: RawRecord) -> WorkItem | InvalidRecord:
        """The record's text, or why there is none; never raises."""
        try:
            return self._decode(record)
        except RecordRejected as rejected:
            fault = _framed_by_header(record, rejected)
            return InvalidRecord(record, DeadLetterReason(fault.reason), fault.message)

    def _decode(self, record: RawRecord) -> WorkItem:
        if record.cut:
            raise RecordRejected(
                DeadLetterReason.TOO_LARGE,
                f"the record has {record.cut.record_bytes} bytes, max_inflight_bytes is "
                f"{record.cut.limit}: only its beginning was read",
            )
        decoded = self._characters(record.value)
        if not self._json:
            return WorkItem(record, _labelled_text(decoded))
        payload = _object(decoded)
        text = _labelled_text(_member(payload, self._text_path))
        return WorkItem(record, text, self._message_id(payload), payload)

    def _characters(self, value: bytes | None) -> str:
        if value is None:
            raise RecordRejected(DeadLetterReason.NULL_VALUE, "the record has no value")
        if len(value) > self._max_bytes:
            raise RecordRejected(
                DeadLetterReason.TOO_LARGE,
                f"the value has {len(value)} bytes, input.max_bytes is {self._max_bytes}",
            )
        if schema := schema_of(value):  # it may be UTF-8, and is no text
            raise _framed(schema)
        try:
            # A byte order mark is legal in UTF-8 and no part of the text.
            return value.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise RecordRejected(
                DeadLetterReason.NOT_UTF8, f"not UTF-8: {error.reason} at byte {error.start}"
            ) from None

    def _message_id(self, payload: dict[str, Any]) -> str | None:
        try:
            found = _member(payload, self._id_path)
        except RecordRejected:
            return None
        if isinstance(found, bool) or not isinstance(found, str | int):
            return None  # to Python, true is the number 1
        return _well_formed(str(found))


def _framed_by_header(record: RawRecord, fault: RecordRejected) -> RecordRejected:
    """The better name for a value that is no JSON because a serializer wrote it."""
    unreadable = fault.reason in (DeadLetterReason.NOT_UTF8, DeadLetterReason.NOT_JSON)
    schema = schema_in(record.headers) if unreadable else None
    return _framed(schema) if schema else fault


def _framed(schema: str) -> RecordRejected:
    return RecordRejected(
        DeadLetterReason.SCHEMA_FRAMED,
        f"framed by a schema registry's serializer, schema {schema}: streamlabel reads plain JSON "
        'or text (input.format); have the producer write that (Connect: "value.converter" = '
        "JsonConverter, schemas.enable = false), or convert the topic first",
    )


def _object(decoded: str) -> dict[str, Any]:
    if not decoded.strip():
        raise RecordRejected(DeadLetterReason.EMPTY_TEXT, "the value is empty or blank")
    try:
        payload = _JSON.decode(decoded)
    except RecursionError:
        raise RecordRejected(DeadLetterReason.NOT_JSON, "JSON nested too deeply") from None
    except json.JSONDecodeError as error:
        # The library's full message would quote nothing of the text; the position is enough.
        where = f"{error.msg} at character {error.pos}"
        raise RecordRejected(DeadLetterReason.NOT_JSON, f"not JSON: {where}") from None
    except ValueError:
        # Python refuses to convert integers of more than 4,300 digits.
        raise RecordRejected(
            DeadLetterReason.NOT_JSON, "not JSON: a number is out of range"
        ) from None
    if not isinstance(payload, dict):
        raise RecordRejected(
            DeadLetterReason.NOT_AN_OBJECT,
            f"JSON, but {_kind(payload)} where an object was expected",
        )
    return payload


def _refuse_constant(name: str) -> None:
    raise RecordRejected(DeadLetterReason.NOT_JSON, f"not JSON: {name} is no JSON number")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)  # `json.loads` would make one a record


def _member(payload: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Walk into objects by key and into arrays by index."""
    here: Any = payload
    for depth, step in enumerate(path):
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isascii() and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
        else:
            missing = ".".join(path[: depth + 1])
            raise RecordRejected(DeadLetterReason.PATH_MISSING, f"no member at {missing!r}")
    return here


def _labelled_text(found: Any) -> str:
    if not isinstance(found, str):
        raise RecordRejected(
            DeadLetterReason.NOT_A_STRING, f"the text is {_kind(found)}, not a string"
        )
    if blank(found):
        raise RecordRejected(DeadLetterReason.EMPTY_TEXT, "the text is empty or blank")
    return found


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


def _well_formed(text: str) -> str:
    """Text without lone surrogates: JSON escapes can make them, UTF-8 can't hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, two special ones included.

    Four bytes of English are near one WordPiece token; scripts without spaces take three bytes a
    character and near one token each. Good enough to close a batch; the tokeniser counts.
    """
    return 2 + len(text.encode("utf-8", "replace")) // 4
