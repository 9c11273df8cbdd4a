"""Framed records: decoded by their schema's type, or rejected with the reason and the remedy."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from schemas import DeadLetterReason
from tests.support.records import raw
from tests.support.schemas import avro_bytes, compiled, record
from worker.core.decoder import Decoder
from worker.core.formats.format import SchemaPending
from worker.core.records import Frame, Headers, InvalidRecord, WorkItem
from worker.errors import RecordRejected
from worker.registry.compile import CompiledSchema
from worker.registry.formats import RegistryFormat
from worker.settings import InputSettings

R = DeadLetterReason
GUID = uuid.UUID("3a9f8c1e-0000-4000-8000-00000000002a")
HEADER = "__value_schema_id"
POST = record(("id", "long"), ("text", "string"))
AVRO, JSON, PROTOBUF, BY_GUID, ENRICHED = 1, 2, 3, str(GUID), 5


class KnownSchemas:
    """Schemas by key; others are pending."""

    def __init__(self) -> None:
        message = 'syntax = "proto3"; message Other { int32 n = 1; } message A { string text = 1; }'
        post = compiled("AVRO", POST)
        self.by_key: dict[int | str, CompiledSchema] = {
            AVRO: post,
            JSON: compiled("JSON", {"properties": {"text": {}, "id": {}}}),
            PROTOBUF: compiled("PROTOBUF", message),
            BY_GUID: post,
            ENRICHED: post,
        }

    def lookup(self, key: int | str) -> CompiledSchema:
        if key not in self.by_key:
            raise SchemaPending(key)
        return self.by_key[key]

    def enriched_frame(self, key: int | str, topic: str) -> bytes | None:
        assert topic == "in"
        return b"\0\0\0\0\x09" if key == ENRICHED else None

    def settled(self, key: Any) -> bool:
        return key in self.by_key


SCHEMAS = KnownSchemas()


def decode(
    value: bytes, headers: Headers = (), *, format_: Any = "auto", **settings: Any
) -> WorkItem | InvalidRecord:
    decoder = Decoder(InputSettings(format=format_, **settings), RegistryFormat(format_, SCHEMAS))
    return decoder.decode(raw(0, value, headers=headers))


def framed(key: int, body: bytes) -> bytes:
    return b"\0" + key.to_bytes(4, "big") + body


POSTED = avro_bytes(POST, {"id": 7, "text": "a post"})


@pytest.mark.parametrize(
    ("format_", "value", "headers"),
    [
        ("avro", framed(AVRO, POSTED), ()),
        ("json_schema", framed(JSON, b'{"text": "a post", "id": 7}'), ()),
        ("protobuf", framed(PROTOBUF, b"\2\2\x0a\x06a post"), ()),
        ("avro", POSTED, ((HEADER, b"\1" + GUID.bytes),)),
        ("avro", POSTED, ((HEADER, b"\0\0\0\0\1"),)),
        ("protobuf", b"\x0a\x06a post", ((HEADER, b"\0\0\0\0\3\2\2"),)),
    ],
)
def test_a_framed_record_is_read_by_its_schema(
    format_: str, value: bytes, headers: Headers
) -> None:
    for chosen in (format_, "auto"):
        item = decode(value, headers, format_=chosen)
        assert isinstance(item, WorkItem), item
        assert item.text == "a post"
        assert item.message_id == (None if format_ == "protobuf" else "7")
        assert item.frame == Frame(0 if headers else 5, None)
        assert item.payload is None  # its bytes suffice


def test_the_fields_of_conditions_are_kept_of_a_framed_record() -> None:
    """Routes and `when` look at them; all of a parsed message would take too much memory."""
    for format_, value in (
        ("avro", framed(AVRO, POSTED)),
        ("json_schema", framed(JSON, b'{"text": "a post", "id": 7}')),
    ):
        decoder = Decoder(
            InputSettings(format=format_),  # type: ignore[arg-type]
            RegistryFormat(format_, SCHEMAS),
            ("id", "lang"),
        )
        item = decoder.decode(raw(0, value))
        assert isinstance(item, WorkItem)
        assert item.payload == {"id": 7}


def test_the_payload_is_kept_for_a_result_that_is_added_to_it() -> None:
    item = decode(framed(ENRICHED, POSTED))
    assert isinstance(item, WorkItem)
    assert item.frame == Frame(5, b"\0\0\0\0\x09")
    assert item.payload == {"id": 7, "text": "a post"}


def test_auto_reads_values_without_a_frame_as_json() -> None:
    item = decode(b'{"text": "plain", "id": "x"}')
    assert isinstance(item, WorkItem)
    assert (item.text, item.message_id, item.frame) == ("plain", "x", None)
    assert item.payload == {"text": "plain", "id": "x"}
    broken = decode(b'{"text":')
    assert isinstance(broken, InvalidRecord)
    assert broken.reason is R.NOT_JSON


@pytest.mark.parametrize(
    ("format_", "value", "headers", "reason", "words"),
    [
        ("avro", b'{"text": "a"}', (), R.NOT_FRAMED, 'set input.format = "auto"'),
        ("avro", b"", (), R.NOT_FRAMED, HEADER),
        ("avro", b"a", ((HEADER, b"\1short"),), R.NOT_FRAMED, HEADER),
        ("avro", b"\3\0" + GUID.bytes, (), R.UNKNOWN_SCHEMA, "AWS Glue"),
        ("auto", b"\3\0" + GUID.bytes, (), R.UNKNOWN_SCHEMA, "AWS Glue"),
        ("auto", bytes(8) + b"\7body", (), R.UNKNOWN_SCHEMA, "Apicurio's serializer with an id"),
        ("protobuf", b"\xc3\1" + bytes(9), (), R.UNKNOWN_SCHEMA, "single-object"),
        ("auto", b"Obj\1", (), R.UNKNOWN_SCHEMA, "an Avro file"),
        ("auto", b"\2a", (("content-type", b"avro/binary+1"),), R.UNKNOWN_SCHEMA, "Azure's"),
        ("avro", framed(JSON, b"{}"), (), R.SCHEMA_MISMATCH, "schema 2 has the type JSON"),
        ("json_schema", framed(PROTOBUF, b"\0"), (), R.SCHEMA_MISMATCH, '"json_schema": set it'),
        ("auto", framed(AVRO, b"\x0e\x7fa"), (), R.SCHEMA_MISMATCH, "does not match its schema"),
        ("auto", framed(JSON, b'{"text"'), (), R.SCHEMA_MISMATCH, "does not match its schema"),
        ("auto", framed(PROTOBUF, b"\x09"), (), R.SCHEMA_MISMATCH, "indexes of its message"),
        ("auto", framed(JSON, b"[]"), (), R.NOT_AN_OBJECT, "an array"),
        ("auto", framed(AVRO, b"\2\0"), (), R.EMPTY_TEXT, "empty"),
        ("auto", framed(PROTOBUF, b"\2\2"), (), R.EMPTY_TEXT, "empty"),
    ],
)
def test_other_records_are_rejected_with_the_reason_and_the_remedy(
    format_: str, value: bytes, headers: Headers, reason: R, words: str
) -> None:
    rejected = decode(value, headers, format_=format_)
    assert isinstance(rejected, InvalidRecord)
    assert rejected.reason is reason
    assert words in rejected.message


def test_json_with_the_content_type_of_another_serializer_is_json() -> None:
    assert isinstance(decode(b'{"text": "a"}', (("content-type", b"avro/binary+1"),)), WorkItem)


@pytest.mark.parametrize(
    ("key", "body", "path", "message"),
    [
        (AVRO, POSTED, "body", "no member at 'body'; fields there: id, text"),
        (AVRO, POSTED, "text.more", "no member at 'text.more': 'text' is a string"),
        (JSON, b'{"secret": 1}', "text", "no member at 'text'; fields there: text, id"),
        (PROTOBUF, b"\2\2", "body", "no member at 'body'; fields there: text"),
        (PROTOBUF, b"\0", "text", "no member at 'text'; fields there: n"),
    ],
)
def test_a_path_that_a_schema_does_not_have_names_its_fields(
    key: int, body: bytes, path: str, message: str
) -> None:
    rejected = decode(framed(key, body), text_path=path)
    assert isinstance(rejected, InvalidRecord)
    assert rejected.reason is R.PATH_MISSING
    assert rejected.message == message


def test_a_record_waits_for_its_schema() -> None:
    format_ = RegistryFormat("auto", SCHEMAS)
    with pytest.raises(SchemaPending) as caught:
        decode(framed(77, b""))
    assert caught.value.schema == 77
    assert (format_.settled(77), format_.settled(AVRO)) == (False, True)
    with pytest.raises(SchemaPending):
        decode(b"", ((HEADER, b"\1" + bytes(16)),))


# -- change events, and Connect's JSON -----------------------------------------------------------

ROW = record(("id", "long"), ("text", ["null", "string"]), name="Value")
CHANGE = {
    "type": "record",
    "name": "Envelope",
    "namespace": "shop.public.posts",
    "fields": [
        {"name": "before", "type": ["null", ROW], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {
            "name": "source",
            "type": record(
                ("version", "string"),
                ("ts_ms", {"type": "long", "connect.version": 1}),
                ("snapshot", ["null", "string"]),
                name="Source",
            ),
        },
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"], "default": None},
    ],
    "connect.name": "shop.public.posts.Envelope",
}
SOURCE = {"version": "3.0", "ts_ms": 1, "snapshot": None}


def change(op: str, before: Any, after: Any) -> WorkItem | InvalidRecord:
    event = {"before": before, "after": after, "source": SOURCE, "op": op, "ts_ms": 5}
    changes = KnownSchemas()
    changes.by_key[4] = compiled("AVRO", CHANGE)
    settings = InputSettings(format="avro", text_path="after.text", id_path="after.id")
    decoder = Decoder(settings, RegistryFormat("avro", changes))
    return decoder.decode(raw(0, framed(4, avro_bytes(CHANGE, event))))


def test_change_events_of_a_database_are_read_from_the_row_after_the_change() -> None:
    """Debezium's envelope, whose second row refers to the type of the first."""
    old, new = {"id": 7, "text": "before"}, {"id": 7, "text": "after"}
    for op, before in (("c", None), ("r", None), ("u", old)):
        item = change(op, before, new)
        assert isinstance(item, WorkItem)
        assert (item.text, item.message_id) == ("after", "7")
    deleted = change("d", old, None)
    assert isinstance(deleted, InvalidRecord)
    assert deleted.reason is R.PATH_MISSING
    assert deleted.message == "no member at 'after.text': 'after' is null"
    null = change("u", old, {"id": 7, "text": None})
    assert isinstance(null, InvalidRecord)
    assert (null.reason, null.message) == (R.NOT_A_STRING, "the text is null, not a string")


def test_the_tombstone_behind_a_deletion_has_no_value() -> None:
    settings = InputSettings(format="avro", text_path="after.text")
    tombstone = Decoder(settings, RegistryFormat("avro", SCHEMAS)).decode(raw(0, None))
    assert isinstance(tombstone, InvalidRecord)
    assert tombstone.reason is R.NULL_VALUE


def test_connects_json_with_schema_and_payload_is_read_from_the_payload() -> None:
    value = json.dumps(
        {
            "schema": {
                "type": "struct",
                "fields": [{"type": "string", "optional": True, "field": "text"}],
            },
            "payload": {"id": 7, "text": "from Connect"},
        }
    ).encode()
    for format_ in ("json", "auto"):
        settings = InputSettings(format=format_, text_path="payload.text", id_path="payload.id")
        decoder = Decoder(settings, RegistryFormat("auto", SCHEMAS) if format_ == "auto" else None)
        item = decoder.decode(raw(0, value))
        assert isinstance(item, WorkItem)
        assert (item.text, item.message_id) == ("from Connect", "7")


def test_an_unusable_schema_is_a_dead_letter_for_its_records() -> None:
    class Unusable(KnownSchemas):
        def lookup(self, key: int | str) -> CompiledSchema:
            raise RecordRejected(R.UNUSABLE_SCHEMA, f"schema {key} can't be used")

    decoder = Decoder(InputSettings(format="avro"), RegistryFormat("avro", Unusable()))
    rejected = decoder.decode(raw(0, framed(AVRO, POSTED)))
    assert isinstance(rejected, InvalidRecord)
    assert rejected.reason is R.UNUSABLE_SCHEMA
