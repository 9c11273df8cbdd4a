"""Avro: every type is read by its writer's schema, and an error in the rest of it does no harm."""

from __future__ import annotations

import uuid
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from schemas import DeadLetterReason
from tests.support.schemas import avro_bytes, compiled, record, rejection
from worker.core.formats.walk import member
from worker.errors import RecordRejected

R = DeadLetterReason
NAMED = {"type": "enum", "name": "Kind", "symbols": ["POST", "REPLY"]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}


def logical(type_: str, name: str) -> dict[str, str]:
    return {"type": type_, "logicalType": name}


@pytest.mark.parametrize(
    ("type_", "written", "read"),
    [
        ("null", None, None),
        ("boolean", True, True),
        ("int", -7, -7),
        ("long", 2**62, 2**62),
        ("float", 0.5, 0.5),
        ("double", 0.1, 0.1),
        ("bytes", b"\xff", b"\xff"),
        ("string", "café 👩‍👩‍👧", "café 👩‍👩‍👧"),
        (NAMED, "REPLY", "REPLY"),
        ({"type": "fixed", "name": "Four", "size": 4}, b"abcd", b"abcd"),
        ({"type": "array", "items": "string"}, ["a", "b"], ["a", "b"]),
        ({"type": "array", "items": "null"}, [None] * 3, [None] * 3),
        ({"type": "map", "values": "long"}, {"a": 1}, {"a": 1}),
        (["null", "string"], "text", "text"),
        (["null", "string"], None, None),
        ({"type": "string", "avro.java.string": "String"}, "a", "a"),
        (DECIMAL, Decimal("12.34"), b"\x04\xd2"),
        (logical("int", "date"), date(2026, 1, 2), 20_455),
        (logical("long", "timestamp-millis"), 2**62, 2**62),
        (logical("long", "timestamp-micros"), -(2**62), -(2**62)),
        (logical("string", "uuid"), str(uuid.UUID(int=7)), str(uuid.UUID(int=7))),
        (logical("string", "unheard-of"), "a", "a"),
    ],
)
def test_every_type_is_read(type_: Any, written: Any, read: Any) -> None:
    schema = record(("before", "string"), ("value", type_), ("text", "string"))
    body = avro_bytes(schema, {"before": "b", "value": written, "text": "after it"})
    assert compiled("AVRO", schema).parse(body) == {
        "before": "b",
        "value": read,
        "text": "after it",
    }


def test_symbols_that_are_no_names_are_read() -> None:
    """Some producers have them; at the top, in a union and where the type is used again."""
    kind = {"type": "enum", "name": "Kind", "symbols": ["a-b", "a-b", "", "größer"]}
    names = {"type": "enum", "name": "Kind", "symbols": ["A", "B", "C", "D"]}
    for wrap in (lambda one: one, lambda one: ["null", one]):
        fields = ("a", ["null", kind]), ("b", "Kind")
        written = wrap(record(("a", ["null", names]), ("b", "Kind")))
        body = avro_bytes(written, {"a": "A", "b": "D"})
        read = compiled("AVRO", wrap(record(*fields))).parse(body)
        assert read == {"a": "a-b", "b": "größer"}


def test_defaults_and_logical_types_that_are_wrong_do_no_harm() -> None:
    schema = record(("text", "string"), ("price", DECIMAL), ("when", "long"), ("kind", NAMED))
    body = avro_bytes(schema, {"text": "t", "price": Decimal(1), "when": 1, "kind": "POST"})
    text, price, when, kind = schema["fields"]
    text["default"] = 5
    price["type"] = {**DECIMAL, "precision": -1, "scale": 99}
    price["default"] = {"not": "bytes"}
    when["type"] = logical("long", "decimal")
    kind["type"] = {**NAMED, "default": "NONE", "aliases": "no list"}
    assert member(compiled("AVRO", schema).parse(body), ("text",)) == "t"


def test_the_path_walks_through_records_unions_arrays_and_maps() -> None:
    post = record(("text", "string"))
    reply = record(("body", "string"), name="Reply")
    schema = record(
        ("posts", {"type": "array", "items": ["null", post, reply]}),
        ("by_name", {"type": "map", "values": "Post"}),
        name="Page",
    )
    value = {"posts": [None, {"body": "a reply"}], "by_name": {"first": {"text": "a post"}}}
    page = compiled("AVRO", schema)
    read = page.parse(avro_bytes(schema, value))
    assert member(read, ("posts", "1", "body")) == "a reply"
    assert member(read, ("by_name", "first", "text")) == "a post"
    assert page.fields(read, ()) == ["posts", "by_name"]
    assert page.fields(read, ("posts", "0")) == ["text", "body"]
    assert page.fields(read, ("by_name", "x")) == ["text"]
    assert page.fields(read, ("by_name",)) == []  # its keys are data
    assert page.fields(read, ("posts", "1", "body")) == page.fields(read, ("nothing",)) == []


def test_a_union_of_records_at_the_top_is_read() -> None:
    schema = [record(("text", "string")), record(("post", ["null", "Post"]), name="Repost")]
    events = compiled("AVRO", schema)
    assert events.parse(b"\0\x02a") == {"text": "a"}
    assert events.parse(b"\x02\x02\x02a") == {"post": {"text": "a"}}
    assert events.fields({}, ()) == ["text", "post"]


def test_names_resolve_as_the_specification_says() -> None:
    inner = {**record(("text", "string"), name="Inner"), "namespace": "b"}
    fields = [
        {"name": "first", "type": inner},
        {"name": "second", "type": "b.Inner"},
        {"name": "third", "type": {"type": "record", "name": "b.Third", "fields": [
            {"name": "inner", "type": "Inner"}]}},
        {"name": "fourth", "type": {"type": "Own"}},
        {"name": "own", "type": {"type": "fixed", "name": "Own", "size": 1, "namespace": ""}},
    ]  # fmt: skip
    schema = {"type": "record", "name": "a.Outer", "fields": fields}
    read = compiled("AVRO", schema).parse(b"\x02a\x02b\x02cxy")
    assert member(read, ("third", "inner", "text")) == "c"
    assert (read["fourth"], read["own"]) == (b"x", b"y")


def test_names_that_java_does_not_check_are_read() -> None:
    schema = record(("my-text", "string"), name="com.acme.my-app$Post")
    assert compiled("AVRO", schema).parse(b"\x02a") == {"my-text": "a"}


def test_references_are_resolved_also_indirect_ones_and_diamonds() -> None:
    author = {**record(("name", "string"), name="Author"), "namespace": "a"}
    post = {**record(("text", "string"), ("by", "a.Author"), name="Post"), "namespace": "p"}
    both = record(("post", "p.Post"), ("to", ["null", "a.Author"]))
    schema = compiled("AVRO", both, {"a.Author": author, "p.Post": post})
    read = schema.parse(b"\x02t\x02n\x02\x02m")
    assert read == {"post": {"text": "t", "by": {"name": "n"}}, "to": {"name": "m"}}
    assert schema.fields(read, ("post", "by")) == ["name"]


def test_a_schema_that_names_only_a_reference_is_read() -> None:
    assert compiled("AVRO", '"Post"', {"Post": record(("text", "string"))}).parse(b"\x02a")


def test_recursive_types_are_read_also_if_they_refer_to_each_other() -> None:
    reply = record(("to", ["null", "Post"]), name="Reply")
    schema = record(("text", "string"), ("replies", {"type": "array", "items": reply}))
    value = {"text": "a", "replies": [{"to": {"text": "b", "replies": []}}, {"to": None}]}
    posts = compiled("AVRO", schema)
    assert posts.parse(avro_bytes(schema, value)) == value
    assert posts.fields(value, ("replies", "0", "to")) == ["text", "replies"]


def test_two_schemas_that_are_defined_alike_are_no_error() -> None:
    inner = record(("text", "string"), name="Inner")
    schema = record(("one", inner), ("two", dict(inner)))
    assert compiled("AVRO", schema).parse(b"\x02a\x02b") == {
        "one": {"text": "a"},
        "two": {"text": "b"},
    }


@pytest.mark.parametrize(
    ("schema", "body", "kind"),
    [('"string"', b"\x02a", "a string"), ({"type": "array", "items": "int"}, b"\0", "an array")],
)
def test_a_body_that_is_no_record_is_not_an_object(schema: Any, body: bytes, kind: str) -> None:
    rejected = rejection(compiled("AVRO", schema), body)
    assert rejected.reason == R.NOT_AN_OBJECT
    assert kind in rejected.message


def test_bytes_that_are_left_over_are_a_mismatch() -> None:
    rejected = rejection(compiled("AVRO", record(("text", "string"))), b"\x02ab")
    assert rejected.reason == R.SCHEMA_MISMATCH
    assert "1 of 3 bytes are left" in rejected.message


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ("", "not JSON"),
        ("syntax", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ("7", "wrong JSON type"),
        ("null", "wrong JSON type"),
        ("{}", "lacks 'type'"),
        ('"Unknown"', "type 'Unknown' is unknown"),
        ({"type": "Unknown"}, "type 'Unknown' is unknown"),
        ({"type": "record", "name": "A"}, "lacks 'fields'"),
        ({"type": "record", "fields": []}, "lacks 'name'"),
        ({"type": "record", "name": 7, "fields": []}, "wrong JSON type"),
        ({"type": "record", "name": "A", "fields": ["a"]}, "wrong JSON type"),
        ({"type": "record", "name": "A", "fields": [{"name": 7, "type": "int"}]}, "wrong JSON"),
        ({"type": "array"}, "lacks 'items'"),
        ({"type": "enum", "name": "A"}, "lacks 'symbols'"),
        ({"type": "enum", "name": "A", "symbols": "AB"}, "no Avro schema"),
        ({"type": "enum", "name": "A", "symbols": [{}]}, "no Avro schema"),
        ({"type": "fixed", "name": "A", "size": "many"}, "no Avro schema"),
        ([], "a union without types"),
    ],
)
def test_a_schema_that_is_none_is_unusable(schema: Any, problem: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        compiled("AVRO", schema)
    assert caught.value.reason == R.UNUSABLE_SCHEMA
    assert problem in caught.value.message
