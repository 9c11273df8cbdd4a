"""Framed results: confluent-kafka writes the same bytes, and reads ours."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import parse_schema, schemaless_reader
from hypothesis import given
from hypothesis import strategies as st

from schemas import Classification
from schemas.forms import DECIDED
from tests.support.records import CARD, raw
from tests.support.registry import ApicurioRegistry, new_subject
from worker.core.encoder import Encoder
from worker.core.records import Classified, Frame, Prediction, WorkItem
from worker.core.topic_limits import TopicLimits
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.results import (
    FORMATS,
    AvroResults,
    FramedResults,
    JsonSchemaResults,
    ProtobufResults,
    result_message,
)
from worker.registry.subjects import OutputSchemas
from worker.settings import OutputSettings, RegistrySettings

DOCUMENT: dict[str, Any] = {
    "id": "5f3c8f8e-5b0e-5d4c-9c55-0f6f3e2f9a11",
    "message_id": "m1",
    "label": "POSITIVE",
    "score": 0.1 + 0.2,
    "labels": [{"label": "NEGATIVE", "score": 1e-9}, {"label": "POSITIVE", "score": 0.1 + 0.2}],
    "token_count": 7,
    "truncated": True,
    "source": {"topic": "in", "partition": 3, "offset": 2**40, "timestamp_ms": -1},
    "model": {"name": "bundlé", "revision": "local", "weights_sha256": "0" * 64},
    "processed_at": datetime(2026, 1, 1, 12, 30, 0, 123_000, tzinfo=UTC),
    "processing_ms": 12.5,
}
BARE = {**DOCUMENT, "message_id": None, "truncated": False, "score": 0.0, "token_count": 0}


def registered(
    kind: type[FramedResults], registry: ApicurioRegistry
) -> tuple[FramedResults, str, SchemaRegistryClient]:
    """Return results that are registered for a topic of their own, and confluent's client."""
    topic = new_subject().removesuffix("-value")
    settings = RegistrySettings(url=registry.url)
    client = RegistryClient(settings, Metrics())
    results = kind(OutputSchemas(client, settings).frame)
    results.add(topic)
    client.close()
    return results, topic, SchemaRegistryClient({"url": registry.url})


def context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


# The subject's name is said: by default their clients ask the registry for one of its own.
SUBJECT = {"subject.name.strategy.type": "TOPIC"}


@pytest.mark.parametrize("document", [DOCUMENT, BARE])
def test_avro_is_what_confluents_serializer_writes(
    registry: ApicurioRegistry, document: Mapping[str, Any]
) -> None:
    """Byte for byte, id included; and their deserializer returns the document."""
    results, topic, client = registered(AvroResults, registry)
    value = results.classification(document, topic)
    theirs = AvroSerializer(client, AvroResults().schema.text, conf=SUBJECT)
    assert theirs(document, context(topic)) == value
    assert AvroDeserializer(client)(value, context(topic)) == document


@pytest.mark.parametrize("document", [DOCUMENT, BARE])
def test_json_is_what_confluents_serializer_writes(
    registry: ApicurioRegistry, document: Mapping[str, Any]
) -> None:
    """The same frame and the same document; theirs validates by the schema of the registry."""
    results, topic, client = registered(JsonSchemaResults, registry)
    value = results.classification(document, topic)
    plain = json.loads(value[5:])
    theirs = JSONSerializer(JsonSchemaResults().schema.text, client, conf=SUBJECT)
    written = theirs(plain, context(topic))
    assert written is not None
    assert written[:5] == value[:5]
    assert json.loads(written[5:]) == plain
    read = JSONDeserializer(None, schema_registry_client=client)
    assert read(value, context(topic)) == plain
    assert Classification.model_validate(plain).model_dump() == document


@pytest.mark.parametrize("document", [DOCUMENT, BARE])
def test_protobuf_is_what_confluents_serializer_writes(
    registry: ApicurioRegistry, document: Mapping[str, Any]
) -> None:
    """Byte for byte but for the id: their client registers a descriptor, and not the text."""
    results, topic, client = registered(ProtobufResults, registry)
    value = results.classification(document, topic)
    message = ProtobufDeserializer(MESSAGE, {})(value, context(topic))
    assert message is not None
    assert message.processed_at.ToDatetime(UTC) == document["processed_at"]
    assert message.HasField("message_id") == (document["message_id"] is not None)
    theirs = ProtobufSerializer(MESSAGE, client, conf=SUBJECT)
    written = theirs(message, context(f"{topic}-theirs"))
    assert written is not None
    assert written[5:] == value[5:]
    assert (message.label, message.labels[1].score) == ("POSITIVE", 0.1 + 0.2)


MORE = {"prepared": None, "temperature": 1.5, "decided": ["POSITIVE"], "windows": 2}


@pytest.mark.parametrize("kind", [AvroResults, ProtobufResults])
def test_a_registry_takes_results_with_decisions_as_a_later_version(
    kind: type[FramedResults], registry: ApicurioRegistry
) -> None:
    """Turning a decision on needs no other subject; consumers with the new schema read both.

    Apicurio Registry can't take a second version of a JSON Schema of draft 2020-12.
    """
    plain, topic, client = registered(kind, registry)
    registry.ask("PUT", f"/config/{topic}-value", {"compatibility": "FULL"})
    settings = RegistrySettings(url=registry.url)
    ids = RegistryClient(settings, Metrics())
    decided = kind(OutputSchemas(ids, settings).frame, DECIDED)
    decided.add(topic)
    ids.close()
    first = plain.classification(DOCUMENT, topic)
    second = decided.classification({**DOCUMENT, **MORE}, topic)
    assert first[:5] != second[:5]
    if kind is AvroResults:
        read = AvroDeserializer(client, decided.schema.text)
        old, new = read(first, context(topic)), read(second, context(topic))
        assert (old["temperature"], old["score"]) == (None, DOCUMENT["score"])
        assert (new["temperature"], new["decided"]) == (1.5, ["POSITIVE"])


FLOATS = st.floats(0, 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    WORDS | st.none(), FLOATS, st.integers(0, 2**62), st.integers(0, 2**41), WORDS, st.booleans()
)
def test_every_format_reads_back(
    message_id: str | None, score: float, offset: int, now_ms: int, label: str, truncated: bool
) -> None:
    """Each member comes back exactly."""
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    document = {
        **DOCUMENT,
        "message_id": message_id,
        "score": score,
        "labels": [{"label": label, "score": score}],
        "source": {**DOCUMENT["source"], "offset": offset},
        "processed_at": moment,
        "truncated": truncated,
    }
    body = BytesIO(AVRO_RESULTS.classification(document, "t")[5:])
    assert schemaless_reader(body, AVRO_SCHEMA, None) == document
    message = MESSAGE.FromString(PROTOBUF_RESULTS.classification(document, "t")[6:])
    assert message.processed_at.ToDatetime(UTC) == moment
    assert (message.source.offset, message.labels[0].label) == (offset, label)
    assert (message.score, message.truncated) == (score, truncated)
    assert (message.message_id if message.HasField("message_id") else None) == message_id


def measured(kind: type[FramedResults]) -> FramedResults:
    """Return results without a registry."""
    results = kind()
    results.add("t")
    results.add("texts.labelled")
    return results


AVRO_SCHEMA = parse_schema(json.loads(AvroResults().schema.text))
AVRO_RESULTS, PROTOBUF_RESULTS = measured(AvroResults), measured(ProtobufResults)
MESSAGE = result_message()


def encoder(results: FramedResults, mode: str = "classification") -> Encoder:
    return Encoder(
        OutputSettings(mode=mode),  # type: ignore[arg-type]
        version="1",
        limits=defaultdict(TopicLimits),
        results=results,
    )


@pytest.mark.parametrize("kind", FORMATS.values())
def test_sizes_need_no_registry(kind: type[FramedResults]) -> None:
    """The size of a result is known before its schema is registered."""
    results = measured(kind)
    smallest, usual = encoder(results).sizes(CARD)
    prediction = Prediction((1 / 3, 1 / 3), 1, truncated=False)
    outcome = Classified(WorkItem(raw(0), "hi"), prediction, CARD)
    value = encoder(results).encode(outcome, now_ms=0, now=0.0).value
    assert 256 + len(value) <= usual + 100
    assert 0 < smallest <= usual


@pytest.mark.parametrize("kind", [AvroResults, JsonSchemaResults])
def test_sizes_of_enriched_records(kind: type[FramedResults]) -> None:
    """They have the size of a result at least."""
    results = measured(kind)
    assert encoder(results, "enrich").sizes(CARD)[0] > encoder(results).sizes(CARD)[0] - 10


def test_a_result_is_appended_to_an_avro_record() -> None:
    """The frame is replaced, the body stays, the result follows."""
    item = WorkItem(
        raw(0, b"\0\0\0\0\7body"), "hi", None, {"text": "hi"}, Frame(5, b"\0\0\0\0\x09")
    )
    value = AVRO_RESULTS.enriched(item, DOCUMENT, "t")
    assert value == b"\0\0\0\0\x09body" + AVRO_RESULTS.classification(DOCUMENT, "t")[5:]
    by_header = dataclasses.replace(item, record=raw(0, b"body"), frame=Frame(0, b"\0\0\0\0\x09"))
    assert AVRO_RESULTS.enriched(by_header, DOCUMENT, "t") == value


def test_a_result_becomes_a_member_of_a_json_record() -> None:
    """The producer's numbers stay as they are; an earlier result is replaced."""
    results = measured(JsonSchemaResults)
    item = WorkItem(
        raw(0, b'\0\0\0\0\7{"n":1.10}'), "hi", None, {"n": 1.1}, Frame(5, b"\0\0\0\0\x09")
    )
    value = results.enriched(item, DOCUMENT, "t")
    assert value.startswith(b'\0\0\0\0\x09{"n":1.10,"classification":{"id":')
    assert json.loads(value[5:])["classification"]["label"] == "POSITIVE"


def test_the_settings_alone_refuse_to_add_to_protobuf() -> None:
    """A mistake in the wiring is no silent loss."""
    item = WorkItem(raw(0, b"\0\0\0\0\7\0"), "hi", None, {}, Frame(5, b"\0\0\0\0\x09"))
    with pytest.raises(NotImplementedError):
        PROTOBUF_RESULTS.enriched(item, DOCUMENT, "t")
