"""Values that confluent-kafka writes with a real registry are read to the same values here.

A JSON Schema or Avro schema may be registered with references, and a Protobuf schema as text or,
by that client, as a descriptor in base64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any, cast

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from schemas import DeadLetterReason
from tests.support.records import raw
from tests.support.registry import ApicurioRegistry, new_subject
from tests.support.schemas import record
from tests.support.workers import wait_until
from worker.clock import SystemClock
from worker.core.decoder import Decoder
from worker.core.formats.format import SchemaPending
from worker.core.records import Headers, InvalidRecord, WorkItem
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.compile import CompiledSchema, compile_schema
from worker.registry.formats import RegistryFormat
from worker.registry.protobuf_files import file_descriptor
from worker.registry.schema import RegisteredSchema
from worker.registry.store import SchemaStore
from worker.settings import InputSettings, RegistrySettings

Decode = Callable[..., WorkItem | InvalidRecord]


@pytest.fixture
def client(registry: ApicurioRegistry) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": registry.url})


@pytest.fixture
def decode(registry: ApicurioRegistry) -> Iterator[Decode]:
    """Return a function that decodes a value as a worker does, and waits for its schema."""
    metrics, clock = Metrics(), SystemClock()
    asked = RegistryClient(RegistrySettings(url=registry.url), metrics)
    store: SchemaStore[CompiledSchema] = SchemaStore(
        asked, compile_schema, size=10, metrics=metrics, clock=clock
    )
    store.start()

    def decoded(value: bytes, headers: Headers = (), **settings: Any) -> WorkItem | InvalidRecord:
        decoder = Decoder(InputSettings(format="auto", **settings), RegistryFormat("auto", store))
        while True:
            try:
                return decoder.decode(raw(0, value, headers=headers))
            except SchemaPending as pending:
                settled = partial(store.settled, cast("int | str", pending.schema))
                wait_until(settled)

    yield decoded
    store.close()
    asked.close()


def topic() -> tuple[str, SerializationContext]:
    name = new_subject().removesuffix("-value")
    return name, SerializationContext(name, MessageField.VALUE, headers=[])


def text(decoded: WorkItem | InvalidRecord) -> str:
    assert isinstance(decoded, WorkItem), decoded
    return decoded.text


AUTHOR = {**record(("name", "string"), name="Author"), "namespace": "people"}
AVRO = {
    "type": "record",
    "name": "Post",
    "namespace": "posts",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9,
                                   "scale": 2}, "default": "\u0000"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "parts", "type": {"type": "array", "items": [
            "null", record(("text", "string"), name="Part"), record(("n", "int"), name="Number")]}},
        {"name": "by_name", "type": {"type": "map", "values": "Part"}},
        {"name": "reply_to", "type": ["null", "Post"], "default": None},
        {"name": "text", "type": ["null", "string"], "default": None},
    ],
}  # fmt: skip
POST = {
    "id": "3a9f8c1e-0000-4000-8000-00000000002a",
    "price": Decimal("12.34"),
    "day": date(2026, 11, 27),
    "at": datetime(2026, 11, 27, tzinfo=UTC),
    "kind": "B",
    "parts": [None, {"n": 5}, {"text": "a part"}],
    "by_name": {"first": {"text": "by name"}},
    "reply_to": None,
    "text": "a post 👩‍👩‍👧",
}


def test_avro_is_read(client: SchemaRegistryClient, decode: Decode) -> None:
    _, context = topic()
    value = AvroSerializer(client, json.dumps(AVRO))({**POST, "reply_to": POST}, context)
    assert isinstance(value, bytes)
    for path, read in (
        ("text", POST["text"]),
        ("reply_to.text", POST["text"]),
        ("parts.2.text", "a part"),
        ("reply_to.by_name.first.text", "by name"),
        ("kind", "B"),
    ):
        item = decode(value, text_path=path)
        assert text(item) == read
        assert isinstance(item, WorkItem)
        assert item.message_id == POST["id"]


def test_avro_with_references_is_read(client: SchemaRegistryClient, decode: Decode) -> None:
    name, context = topic()
    client.register_schema(f"{name}-author", Schema(json.dumps(AUTHOR), "AVRO"))
    post = record(("text", "string"), ("by", ["null", "people.Author"]))
    schema = Schema(
        json.dumps(post), "AVRO", [SchemaReference("people.Author", f"{name}-author", 1)]
    )
    value = AvroSerializer(client, schema)({"text": "t", "by": {"name": "Ann"}}, context)
    assert text(decode(value, text_path="by.name")) == "Ann"


def test_two_writers_schemas_in_one_topic_are_read(
    client: SchemaRegistryClient, decode: Decode
) -> None:
    """The second writer has the fields in another order, and one more."""
    _, context = topic()
    old = record(("text", "string"), ("id", "long"))
    new = record(("id", "long"), ("text", ["string", "null"]))
    new["fields"].insert(1, {"name": "more", "type": ["null", "double"], "default": None})
    serializers = [AvroSerializer(client, json.dumps(schema)) for schema in (old, new)]
    for number in range(6):
        value = serializers[number % 2]({"text": f"text {number}", "id": number}, context)
        item = decode(value)
        assert isinstance(item, WorkItem)
        assert (item.text, item.message_id) == (f"text {number}", str(number))


JSON_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Post",
    "type": "object",
    "properties": {"text": {"type": "string"}, "by": {"$ref": "author.json"}},
}


def test_json_schema_with_references_is_read(client: SchemaRegistryClient, decode: Decode) -> None:
    name, context = topic()
    author = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "author.json",
        "type": "object",
        "properties": {"name": {"type": "string"}},
    }
    client.register_schema(f"{name}-author", Schema(json.dumps(author), "JSON"))
    schema = Schema(
        json.dumps(JSON_SCHEMA), "JSON", [SchemaReference("author.json", f"{name}-author", 1)]
    )
    value = JSONSerializer(schema, client)({"text": "t 👩‍👩‍👧", "by": {"name": "Ann"}}, context)
    assert text(decode(value)) == "t 👩‍👩‍👧"
    assert text(decode(value, text_path="by.name")) == "Ann"
    missing = decode(value, text_path="body")
    assert isinstance(missing, InvalidRecord)
    assert missing.message == "no member at 'body'; fields there: text, by"


OTHER = 'syntax = "proto3"; package people; message Author { string name = 1; }'
PROTO = """\
syntax = "proto3";
package posts;
import "google/protobuf/timestamp.proto";
import "people.proto";
message First { int32 n = 1; }
message Post {
  message Part { string text = 1; people.Author by = 2; }
  string text = 1;
  repeated Part parts = 2;
  google.protobuf.Timestamp at = 3;
}
"""


# Without an import of our own: this registry can't parse a descriptor that has one.
ALONE = PROTO.replace('import "people.proto";', OTHER.partition("package people;")[2]).replace(
    "people.Author", "Author"
)


def post_class(text: str, references: Mapping[str, str] | None = None) -> Any:
    schema = RegisteredSchema("PROTOBUF", text, resolved=references or {})
    return GetMessageClass(file_descriptor(schema).message_types_by_name["Post"])


FIELDS: dict[str, Any] = {
    "text": "a post",
    "parts": [{"text": "a part", "by": {"name": "Ann"}}],
    "at": {"seconds": 5},
}


def test_protobuf_is_read_with_the_descriptor_that_its_serializer_registers(
    client: SchemaRegistryClient, registry: ApicurioRegistry, decode: Decode
) -> None:
    message = post_class(ALONE)

    def written(value: Message) -> bytes:
        options = {"use.deprecated.format": False}
        content = ProtobufSerializer(type(value), client, options)(value, topic()[1])
        assert isinstance(content, bytes)
        return content

    value = written(message(**FIELDS))
    number = int.from_bytes(value[1:5], "big")
    assert "message" not in registry.ask("GET", f"/schemas/ids/{number}")["schema"]  # base64
    assert value[5:7] == b"\2\4"  # the third message of its file
    assert text(decode(value)) == "a post"
    assert text(decode(value, text_path="parts.0.by.name")) == "Ann"
    part = GetMessageClass(message.DESCRIPTOR.nested_types_by_name["Part"])
    assert text(decode(written(part(text="only a part")))) == "only a part"


def test_protobuf_is_read_with_a_text_and_its_references(
    registry: ApicurioRegistry, decode: Decode
) -> None:
    name, _ = topic()
    registry.register(f"{name}-people", OTHER, "PROTOBUF")
    references = [("people.proto", f"{name}-people", 1)]
    number = registry.register(f"{name}-value", PROTO, "PROTOBUF", references)
    assert "message" in registry.ask("GET", f"/schemas/ids/{number}")["schema"]
    body = post_class(PROTO, {"people.proto": OTHER})(**FIELDS).SerializeToString()
    value = b"\0" + number.to_bytes(4, "big") + b"\2\2" + body
    assert text(decode(value, text_path="parts.0.by.name")) == "Ann"


def test_an_id_in_a_header_is_read(client: SchemaRegistryClient, decode: Decode) -> None:
    """The client writes a GUID there, which this registry does not have."""
    name, context = topic()
    schema = json.dumps(record(("text", "string")))
    number = client.register_schema(f"{name}-value", Schema(schema, "AVRO"))
    headers: Headers = (("__value_schema_id", b"\0" + number.to_bytes(4, "big")),)
    assert text(decode(b"\2a", headers)) == "a"
    unframed = header_schema_id_serializer(b"\2a", context, _Guid())
    (header,) = context.headers or []
    unknown = decode(unframed, (header,))
    assert isinstance(unknown, InvalidRecord)
    assert unknown.reason is DeadLetterReason.UNKNOWN_SCHEMA
    assert _Guid.guid in unknown.message


class _Guid:
    guid = "3a9f8c1e-0000-4000-8000-00000000002a"

    def guid_to_bytes(self) -> bytes:
        return b"\1" + bytes.fromhex(self.guid.replace("-", ""))
