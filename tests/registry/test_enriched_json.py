"""Enriched JSON Schemas: an object that was valid is valid with its result, and no other is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from jsonschema import ValidationError
from jsonschema.validators import validator_for
from pydantic_core import to_json
from referencing import Registry, Resource

from tests.registry.test_results import DOCUMENT
from tests.support.records import raw
from tests.support.registry import ApicurioRegistry, new_subject
from worker.core.records import Frame, WorkItem
from worker.errors import RecordRejected
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.enrich import Enrichment, enriched_schema
from worker.registry.results import JsonSchemaResults
from worker.registry.schema import RegisteredSchema
from worker.registry.subjects import OutputSchemas
from worker.settings import RegistrySettings

RESULT = json.loads(to_json(DOCUMENT))
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
LATEST = "https://json-schema.org/draft/2020-12/schema"
TEXT = {"text": {"type": "string"}}
CLOSED = {"properties": TEXT, "additionalProperties": False}
NODE = {**CLOSED, "properties": {**TEXT, "next": {"$ref": "#/definitions/No~1de%25"}}}


def schema(text: Any, **resolved: Any) -> RegisteredSchema:
    others = {name.replace("_", "."): json.dumps(other) for name, other in resolved.items()}
    return RegisteredSchema("JSON", json.dumps(text), resolved=others)


def validate(enriched: RegisteredSchema, value: Any) -> None:
    text = json.loads(enriched.text)
    others = [
        (name, Resource.from_contents({"$schema": DRAFT_7, **json.loads(other)}))
        for name, other in enriched.resolved.items()
    ]
    validator_for(text)(text, registry=Registry().with_resources(others)).validate(value)


VALID: list[tuple[RegisteredSchema, dict[str, Any]]] = [
    (schema({}), {"text": "hi"}),
    (schema({"$schema": DRAFT_7, "type": "object", **CLOSED}), {"text": "hi"}),
    (schema({"$schema": LATEST, "type": ["object", "null"], **CLOSED}), {"text": "hi"}),
    (schema({"$schema": LATEST, "unevaluatedProperties": False, "properties": TEXT}), {"text": "x"}),
    (schema({"additionalProperties": {"type": "string"}}), {"text": "hi"}),
    (schema({"allOf": [{"properties": TEXT}, CLOSED]}), {"text": "hi"}),
    (schema({"oneOf": [{**CLOSED, "required": ["text"]}, {"required": ["n"]}]}), {"text": "hi"}),
    (schema({"anyOf": [False, CLOSED]}), {"text": "hi"}),
    (schema({"not": {**CLOSED, "required": ["text"]}}), {"text": "hi", "n": 1}),
    (
        schema({"$schema": DRAFT_7, "if": CLOSED, "then": {"required": ["text"]}, "else": False}),
        {"text": "hi"},
    ),
    (
        schema({"$schema": DRAFT_7, "dependencies": {"text": CLOSED, "n": ["text"]}}),
        {"text": "hi"},
    ),
    (schema({"$schema": LATEST, "dependentSchemas": {"text": CLOSED}}), {"text": "hi"}),
    (
        schema({"$schema": DRAFT_7, "$ref": "#/definitions/No~1de%25", "definitions": {"No/de%": NODE}}),
        {"text": "hi", "next": {"text": "ho"}},
    ),
    (
        schema({"$schema": DRAFT_7, "$id": "http://x/root.json", "allOf": [{"$ref": "http://x/root.json#/definitions/A"}], "definitions": {"A": CLOSED}}),
        {"text": "hi"},
    ),
    (
        schema({"$schema": DRAFT_7, "allOf": [{"$ref": "#/items/0"}], "items": [CLOSED]}),
        {"text": "hi"},
    ),
    (schema({**CLOSED, "properties": {**TEXT, "next": {"$ref": "#"}}}), {"text": "a", "next": {"text": "b"}}),
    (schema({"allOf": [{"$ref": "base.json#/definitions/B"}]}, base_json={"definitions": {"B": {"properties": TEXT}}}), {"text": "hi"}),
    (schema({"patternProperties": {"^x-": {"type": "string"}}}), {"text": "hi"}),
    (schema({"properties": {**TEXT, "classification": {"type": "integer"}}}), {"text": "hi"}),
]  # fmt: skip


@pytest.mark.parametrize(("writer", "value"), VALID, ids=range(len(VALID)))
def test_an_object_with_its_result_is_valid(writer: RegisteredSchema, value: Any) -> None:
    """By a validator that knows each dialect: wherever the writer's schema is closed."""
    validate(writer, value)
    validate(enriched_schema(writer), {**value, "classification": RESULT})


@pytest.mark.parametrize(("writer", "value"), VALID, ids=range(len(VALID)))
def test_the_schema_says_what_it_is(writer: RegisteredSchema, value: Any) -> None:
    """A dialect is named, and the property described."""
    root = json.loads(enriched_schema(writer).text)
    assert root["$schema"]
    assert root["properties"]["classification"]["title"] == "Classification"
    assert "$ref" not in json.dumps(root["properties"]["classification"])


def test_an_expression_that_python_does_not_know_matches_nothing() -> None:
    """It belongs to another dialect, and is no plain word."""
    writer = schema({"patternProperties": {"^\\p{L}+_id$": {"type": "string"}}})
    assert "Classification" in enriched_schema(writer).text


def test_a_closed_object_stays_closed() -> None:
    """Only the result is allowed beside the writer's members, and it must be one."""
    enriched = enriched_schema(schema({"$schema": DRAFT_7, **CLOSED}))
    with pytest.raises(ValidationError):
        validate(enriched, {"text": "hi", "other": 1})
    with pytest.raises(ValidationError):
        validate(enriched, {"text": "hi", "classification": {"label": "A"}})


def test_a_referenced_root_describes_the_result() -> None:
    """In draft 7, what is beside `$ref` does not count."""
    writer = schema({"$schema": DRAFT_7, "$ref": "#/definitions/A", "definitions": {"A": CLOSED}})
    enriched = enriched_schema(writer)
    with pytest.raises(ValidationError):
        validate(enriched, {"text": "hi", "classification": {"label": "A"}})


@pytest.mark.parametrize(
    ("writer", "problem"),
    [
        (schema(True), "root is not an object"),
        (schema({"type": "string"}), "root is not an object"),
        (schema({"type": ["array", "null"]}), "root is not an object"),
        (schema({"propertyNames": {"maxLength": 4}}), "has 'propertyNames'"),
        (schema({"allOf": [{"maxProperties": 1}]}), "has 'maxProperties'"),
        (schema({"patternProperties": {"^c": {"type": "string"}}}), "has 'patternProperties "),
        (schema({"$dynamicRef": "#x"}), r"has '\$dynamicRef'"),
        (schema({"$ref": "#/definitions/A"}), "'#/definitions/A' is not found"),
        (schema({"$ref": "#A", "$defs": {"A": {"$anchor": "A"}}}), "'#A' is not a path"),
        (schema({"$ref": "other.json"}), "'other.json' is not found"),
        (schema({"$ref": "other.json"}, other_json=CLOSED), "refers to refuses further members"),
        (schema({"allOf": 1}), "malformed: TypeError"),
        (schema({"patternProperties": {"a{99999999999999999999}": {}}}), "malformed: Overflow"),
        (RegisteredSchema("JSON", "{"), "malformed: JSONDecodeError"),
    ],
)
def test_a_schema_that_has_no_place_for_the_result_is_refused(
    writer: RegisteredSchema, problem: str
) -> None:
    """Its records become dead letters, with the reason."""
    with pytest.raises(RecordRejected, match=problem) as raised:
        enriched_schema(writer)
    assert raised.value.reason == "unusable_schema"


def test_confluents_deserializer_validates_enriched_records(registry: ApicurioRegistry) -> None:
    """By the schema that the frame names; an object within the object has no result."""
    topic = new_subject().removesuffix("-value")
    settings = RegistrySettings(url=registry.url)
    client = RegistryClient(settings, Metrics())
    writer = schema({"$schema": DRAFT_7, "title": "Post", "type": "object", **CLOSED})
    frame = Enrichment(OutputSchemas(client, settings).frame, topic)(writer, "in")
    client.close()
    body = b'{"text":"hi"}'
    item = WorkItem(raw(0, b"\0\0\0\0\7" + body), "hi", None, {"text": "hi"}, Frame(5, frame))
    value = JsonSchemaResults().enriched(item, DOCUMENT, topic)
    theirs = JSONDeserializer(
        None, schema_registry_client=SchemaRegistryClient({"url": registry.url})
    )
    read = theirs(value, SerializationContext(topic, MessageField.VALUE))
    assert read == {"text": "hi", "classification": RESULT}
