"""JSON without a schema: input objects, and results as JSON documents.

JSON is parsed strictly (RFC 8259: UTF-8, no NaN or Infinity). If a key occurs twice, the last one
counts.

Owns: the reasons for which a value is not a JSON object.
Thread: any; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Hashable, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from schemas.dead_letter import DeadLetterReason
from schemas.forms import PLAIN, ResultForm
from worker.core.formats.format import Document
from worker.core.formats.plain_text import characters, framed_by_header, refuse_framed
from worker.core.formats.walk import kind
from worker.core.records import Headers, WorkItem
from worker.errors import RecordRejected

ENRICHED_MEMBER = PLAIN.member


class JsonFormat:
    """Parses JSON objects."""

    has_members = True

    def parse(self, value: bytes, headers: Headers, topic: str = "") -> Document:  # noqa: ARG002
        """Parse an object; raise RecordRejected for anything else."""
        refuse_framed(value)  # it is valid UTF-8 in some cases
        try:
            return Document(parse_object(value))
        except RecordRejected as error:
            raise framed_by_header(value, headers, error) from None

    def settled(self, schema: Hashable) -> bool:  # noqa: ARG002
        """Return True: there is no schema."""
        return True


class JsonResults:
    """Serialises results as JSON documents.

    Args:
        form: of the results.
    """

    def __init__(self, form: ResultForm = PLAIN) -> None:
        self._member = form.member

    def classification(self, document: Mapping[str, Any], topic: str) -> bytes:  # noqa: ARG002
        """Return a result."""
        return to_json(document)

    def enriched(self, item: WorkItem, document: Mapping[str, Any], topic: str) -> bytes:  # noqa: ARG002
        """Return the input object with the result as a member."""
        return enriched_object(item.record.value or b"", item.payload or {}, document, self._member)


def enriched_object(
    body: bytes,
    payload: Mapping[str, Any],
    document: Mapping[str, Any],
    member: str = ENRICHED_MEMBER,
) -> bytes:
    """Return an object with a result as a member.

    The member is inserted before the last brace, so that the producer's numbers, duplicate keys
    and member order stay as they are. Only an object that already has such a member is serialised
    again, without it.

    Args:
        body: the object as its producer wrote it.
        payload: the object, parsed.
        document: the result.
        member: its name.
    """
    body = body.strip()
    if member in payload:
        kept = {name: value for name, value in payload.items() if name != member}
        # ValueError: a number that no float can hold. The member then occurs twice, and the last
        # one counts.
        with contextlib.suppress(ValueError):
            body = json.dumps(kept, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((body[:-1], b',"', member.encode(), b'":', to_json(document), b"}"))


def parse_object(value: bytes) -> dict[str, Any]:
    """Return a JSON object; raise RecordRejected for anything else."""
    try:
        payload = from_json(value, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        # Python's parser is slower. It also reads byte order marks, lone surrogates and deep
        # nesting, and its errors name the place.
        payload = _parsed(characters(value))
    if not isinstance(payload, dict):
        raise RecordRejected(
            DeadLetterReason.NOT_AN_OBJECT,
            f"JSON, but {kind(payload)} where an object was expected",
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
