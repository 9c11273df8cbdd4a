"""Enriched Avro: no byte of the writer changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from avro.schema import parse as parse_avro
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from tests.registry.test_results import DOCUMENT
from tests.support.records import raw
from tests.support.registry import ApicurioRegistry, new_subject
from worker.core.records import Frame, WorkItem
from worker.errors import RecordRejected
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.enrich import Enrichment, enriched_schema
from worker.registry.results import AvroResults
from worker.registry.schema import RegisteredSchema, SchemaReference
from worker.registry.subjects import OutputSchemas
from worker.settings import RegistrySettings

USER = {
    "type": "record",
    "name": "User",
    "namespace": "com.acme",
    "fields": [{"name": "name", "type": "string"}],
}
RICH: dict[str, Any] = {
    "type": "record",
    "name": "Post",
    "namespace": "com.acme",
    "doc": "Ein Beitrag \U0001f600",
    "aliases": ["OldPost"],
    "fields": [
        {"name": "text", "type": "string", "aliases": ["body"]},
        {"name": "author", "type": USER},
        {"name": "editor", "type": ["null", "User"], "default": None},
        {"name": "either", "type": ["null", "string", "long", {"type": "map", "values": "int"}]},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4},
            "default": "\u00ff",
        },
        {"name": "mood", "type": {"type": "enum", "name": "Mood", "symbols": ["UP", "DOWN"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "Md", "size": 4}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "ratio", "type": "float", "default": 1.5},
        {"name": "replies", "type": {"type": "array", "items": "Post"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
    ],
}
# The same, but it does not contain itself.
FLAT = {**RICH, "fields": [field for field in RICH["fields"] if field["name"] != "replies"]}
LEAF = {
    "text": "hi",
    "author": {"name": "Zoë"},
    "editor": None,
    "either": 2**40,
    "price": Decimal("-1234567890.1234"),
    "mood": "DOWN",
    "hash": b"\0\1\2\xff",
    "day": date(1950, 1, 1),
    "key": UUID(int=7),
    "at": datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC),
    "ratio": 0.5,
    "replies": [],
    "tags": ["a", ""],
}
POST = {**LEAF, "editor": {"name": "E"}, "either": {"n": -3}, "replies": [LEAF, LEAF]}


def avro(schema: Any, **members: Any) -> RegisteredSchema:
    return RegisteredSchema("AVRO", json.dumps(schema), **members)


def body_of(schema: Any, record: Mapping[str, Any]) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), record)
    return stream.getvalue()


def enriched(body: bytes, frame: bytes = b"\0\0\0\0\x09") -> bytes:
    """Return the value of a record with this body and its result."""
    item = WorkItem(raw(0, b"\0\0\0\0\7" + body), "hi", None, {}, Frame(5, frame))
    return AvroResults().enriched(item, DOCUMENT, "t")


def test_every_type_is_kept_byte_for_byte() -> None:
    """Unions, decimals, enums, recursion, defaults and aliases: nothing is encoded again."""
    body = body_of(RICH, POST)
    value = enriched(body)
    assert value[5:].startswith(body)
    text = enriched_schema(avro(RICH)).text
    read = schemaless_reader(BytesIO(value[5:]), parse_schema(json.loads(text)), None)
    assert read == {**POST, "classification": DOCUMENT}


def test_the_writers_schema_stays_but_for_one_field() -> None:
    """Docs, aliases, defaults and names are those of the writer."""
    root = json.loads(enriched_schema(avro(FLAT)).text)
    added = root["fields"].pop()
    assert root == FLAT
    assert (added["name"], added["type"]["namespace"]) == ("classification", "streamlabel")


def test_an_old_reader_skips_the_result() -> None:
    """A reader's schema is the writer's, which does not have the field."""
    value = enriched(body_of(RICH, POST))
    writer = parse_schema(json.loads(enriched_schema(avro(RICH)).text))
    assert schemaless_reader(BytesIO(value[5:]), writer, parse_schema(RICH)) == POST


@pytest.mark.parametrize("namespace", ["com.acme", ""])
def test_records_within_a_recursive_record_get_no_result(namespace: str) -> None:
    """They are of a type of their own, of which every reader makes sense."""
    node = {
        "type": "record",
        "name": "Node",
        "namespace": namespace,
        "aliases": ["Knot"],
        "fields": [
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
            {"name": "next", "type": ["null", "Node"]},
            {"name": "by", "type": {"type": "map", "values": {"type": "array", "items": "Node"}}},
            {"name": "last", "type": "Kind"},
            {"name": "n", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        ],
    }
    leaf = {"kind": "B", "next": None, "by": {}, "last": "A", "n": datetime(2026, 1, 1, tzinfo=UTC)}
    value = {**leaf, "next": {**leaf, "by": {"x": [leaf]}}, "by": {"y": [leaf, leaf]}}
    wrapped = avro(node).text.replace('"type": "Kind"', '"type": {"type": "Kind"}')
    text = enriched_schema(RegisteredSchema("AVRO", wrapped)).text
    full = f"{namespace}.Node" if namespace else "Node"
    assert parse_avro(text).fullname == full
    body = enriched(body_of(node, value))[5:]
    writer = parse_schema(json.loads(text))
    assert schemaless_reader(BytesIO(body), writer, None) == {**value, "classification": DOCUMENT}


def test_the_inner_type_gets_a_free_name() -> None:
    """A type of the writer may have the name already."""
    taken = {"type": "enum", "name": "com.acme.original.Post", "symbols": ["A"]}
    schema = {**RICH, "fields": [*RICH["fields"], {"name": "x", "type": taken}]}
    text = enriched_schema(avro(schema)).text
    assert '"name":"Post_","namespace":"com.acme.original"' in text
    parse_schema(json.loads(text))


def test_a_schema_of_5_mb() -> None:
    """Every field is kept."""
    fields = [{"name": f"f{i}", "type": ["null", "string"], "doc": "x" * 900} for i in range(5500)]
    schema = avro({"type": "record", "name": "Wide", "fields": fields})
    assert len(schema.text) > 5_000_000
    assert len(json.loads(enriched_schema(schema).text)["fields"]) == 5501


def test_references_stay() -> None:
    """A type of another subject is used by its name, as before."""
    schema = {"type": "record", "name": "P", "fields": [{"name": "by", "type": "com.acme.User"}]}
    references = (SchemaReference("com.acme.User", "user-value", 1),)
    writer = avro(schema, references=references, resolved={"com.acme.User": json.dumps(USER)})
    result = enriched_schema(writer)
    assert result.references == references
    assert result.resolved == writer.resolved
    assert json.loads(result.text)["fields"][0] == schema["fields"][0]  # type: ignore[index]


def record(*fields: Any, **members: Any) -> dict[str, Any]:
    return {"type": "record", "name": "P", **members, "fields": list(fields)}


OWN_TYPE = {"type": "enum", "name": "streamlabel.LabelScore", "symbols": ["A"]}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (avro("string"), "root is not a record"),
        (avro(["null", RICH]), "root is not a record"),
        (avro({"type": "map", "values": "string"}), "root is not a record"),
        (avro(record({"name": "classification", "type": "int"})), "has a field 'classification'"),
        (
            avro(record({"name": "x", "type": ["null", OWN_TYPE]})),
            "defines streamlabel.LabelScore",
        ),
        (
            avro(record(), resolved={"o": json.dumps({**OWN_TYPE, "name": "ModelRef"})}),
            None,
        ),
        (
            avro(
                record(
                    {"name": "x", "type": {**OWN_TYPE, "name": "ModelRef"}}, name="streamlabel.P"
                )
            ),
            "defines streamlabel.ModelRef",
        ),
        (
            avro(record(), resolved={"streamlabel.LabelScore": json.dumps(OWN_TYPE)}),
            "defines streamlabel.LabelScore",
        ),
        (RegisteredSchema("AVRO", "{"), "malformed: JSONDecodeError"),
        (avro({"type": "record", "name": "P"}), "malformed: KeyError"),
        (avro(record("text")), "malformed: TypeError"),
        (RegisteredSchema("PROTOBUF", ""), "Protobuf"),
    ],
)
def test_a_schema_that_has_no_place_for_the_result_is_refused(
    schema: RegisteredSchema, problem: str | None
) -> None:
    """Its records become dead letters, with the reason."""
    if problem is None:  # the same name in no namespace is another type
        assert enriched_schema(schema).text
        return
    with pytest.raises(RecordRejected, match=problem) as raised:
        enriched_schema(schema)
    assert raised.value.reason == "unusable_schema"


def test_confluents_deserializer_reads_enriched_records(registry: ApicurioRegistry) -> None:
    """By the id in the frame alone, as the writer's schema evolves; references included."""
    topic = new_subject().removesuffix("-value")
    registry.register(f"{topic}-user", json.dumps(USER))
    user = SchemaReference("com.acme.User", f"{topic}-user", 1)
    fields = [{"name": "by", "type": "com.acme.User"}, {"name": "text", "type": "string"}]
    settings = RegistrySettings(url=registry.url)
    client = RegistryClient(settings, Metrics())
    enrich = Enrichment(OutputSchemas(client, settings).frame, topic)
    theirs = AvroDeserializer(SchemaRegistryClient({"url": registry.url}))
    resolved = {"com.acme.User": json.dumps(USER)}
    read = []
    for more in ([], [{"name": "lang", "type": "string", "default": "en"}]):
        schema = {"type": "record", "name": "P", "fields": [*fields, *more]}
        writer = avro(schema, references=(user,), resolved=resolved)
        body = b"\x06Zo\x65\x04hi" + (b"\x04de" if more else b"")
        value = enriched(body, enrich(writer, "in"))
        assert enrich(writer, "in") == value[:5]
        read.append(theirs(value, SerializationContext(topic, MessageField.VALUE)))
    client.close()
    assert read[0] == {"by": {"name": "Zoe"}, "text": "hi", "classification": DOCUMENT}
    assert read[1] == {**read[0], "lang": "de"}
    assert registry.ask("GET", f"/subjects/{topic}-value/versions") == [1, 2]


def test_the_enriched_schema_is_registered_for_the_topics_of_routes_too() -> None:
    """Their readers find it under the subject of their topic; all of them have one frame."""
    registered: list[str] = []

    def frame_of(_: RegisteredSchema, topic: str) -> bytes:
        registered.append(topic)
        return f"frame of {topic}".encode()

    enrich = Enrichment(frame_of, "{topic}.out", routed=("angry", "{topic}.out", "{topic}.spam"))
    assert enrich(avro(record({"name": "text", "type": "string"})), "in") == b"frame of in.out"
    assert registered == ["in.out", "angry", "in.spam"]
