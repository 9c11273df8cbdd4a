"""JSON Schema: bodies are JSON objects, read strictly; the schema gives names to messages."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import DeadLetterReason
from tests.support.schemas import compiled, rejection
from worker.errors import RecordRejected

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "author": {"oneOf": [{"type": "null"}, {"$ref": "#/definitions/author"}]},
        "replies": {"type": "array", "items": {"$ref": "#"}},
        "odd": {"$ref": "#/definitions/nowhere/at/all"},
        "elsewhere": {"$ref": "other.json"},
    },
    "definitions": {"author": {"properties": {"name": {}, "mail": {}}}},
}


def test_an_object_is_read_and_not_validated() -> None:
    assert compiled("JSON", SCHEMA).parse(b'{"text": 5, "more": [1]}') == {"text": 5, "more": [1]}
    assert compiled("JSON", "true").parse(b"{}") == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", DeadLetterReason.SCHEMA_MISMATCH),
        (b"{", DeadLetterReason.SCHEMA_MISMATCH),
        (b"\xff", DeadLetterReason.SCHEMA_MISMATCH),
        (b'{"a": NaN}', DeadLetterReason.SCHEMA_MISMATCH),
        (b'{"a":' + b"[" * 100_000, DeadLetterReason.SCHEMA_MISMATCH),
        (b'"text"', DeadLetterReason.NOT_AN_OBJECT),
    ],
)
def test_a_body_that_is_no_object_is_rejected(body: bytes, reason: DeadLetterReason) -> None:
    assert rejection(compiled("JSON", SCHEMA), body).reason == reason


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", ["text", "author", "replies", "odd", "elsewhere"]),
        ("author", ["name", "mail"]),
        ("replies.0.author", ["name", "mail"]),
        ("text", []),
        ("odd", []),
        ("elsewhere", []),
        ("nothing.at.all", []),
    ],
)
def test_the_names_of_properties_are_found(path: str, names: list[str]) -> None:
    steps = tuple(path.split(".")) if path else ()
    assert compiled("JSON", SCHEMA).fields({}, steps) == names


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}] * 1000}, {"properties": []}, {"anyOf": 5}]
)
def test_a_schema_that_refers_to_itself_ends(schema: Any) -> None:
    assert compiled("JSON", schema).fields({}, ("a", "0", "b")) == []


@pytest.mark.parametrize("schema", ["", "{", "[]", '"text"', "7", "[" * 100_000])
def test_a_schema_that_is_none_is_unusable(schema: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        compiled("JSON", schema)
    assert caught.value.reason == DeadLetterReason.UNUSABLE_SCHEMA
