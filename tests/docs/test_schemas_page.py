"""Each example of docs/schemas.md does what the page says, on a broker and a schema registry.

The records come from Confluent's serializers, and its deserializers read the results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from tests.conftest import Broker, Topics
from tests.support.registry import ApicurioRegistry
from tests.support.workers import (
    ObedientModel,
    Record,
    WorkerThread,
    flags,
    produce,
    read,
    wait_until,
)
from worker.settings import load

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/schemas.md").read_text(encoding="utf-8")
CLASSIFICATION = (ROOT / "schemas/classification.avsc").read_text(encoding="utf-8")
POST = {
    "type": "record",
    "name": "Post",
    "fields": [{"name": "id", "type": "string"}, {"name": "text", "type": "string"}],
}
LOVED = {"id": "7", "text": "I love this."}


def block(section: str, language: str) -> str:
    """Return the first fenced block of a section in a language."""
    _, heading, rest = PAGE.partition(f"\n## {section}\n")
    assert heading, f"docs/schemas.md has no section {section!r}"
    found = re.search(
        rf"^```{language}\n(.*?)^```$", rest.partition("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    assert found, f"section {section!r} has no example in {language}"
    return found[1]


@dataclass
class Stage:
    """Runs a section's settings on the topics of the test."""

    broker: Broker
    topics: Topics
    registry: ApicurioRegistry
    folder: Path

    @property
    def client(self) -> SchemaRegistryClient:
        return SchemaRegistryClient({"url": self.registry.url})

    def framed(self, serializer: Callable[..., bytes | None], document: Any) -> Record:
        context = SerializationContext(self.topics.input, MessageField.VALUE)
        return b"key", serializer(document, context)

    def avro(self, schema: Any, document: Any) -> Record:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return self.framed(AvroSerializer(self.client, text), document)

    def outcomes(self, section: str, records: Iterable[Record], dead: int = 0) -> Outcomes:
        """Label the records with the settings of a section; some become dead letters."""
        records = list(records)
        produce(self.broker, self.topics.input, records)
        with self._worker(section) as worker:
            wait_until(lambda: worker.published == len(records) - dead, what="all are labelled")
            wait_until(
                lambda: len(self._read(self.topics.dead)) == dead, what="the others are dead"
            )
        results = self._read(self.topics.output)
        return Outcomes(self.topics.output, results, self._read(self.topics.dead))

    @contextmanager
    def _worker(self, section: str) -> Iterator[WorkerThread]:
        config = self.folder / "streamlabel.toml"
        config.write_text(block(section, "toml"), encoding="utf-8")
        given = flags(self.broker, self.topics)
        if "[registry]" in config.read_text(encoding="utf-8"):
            given["registry.url"] = self.registry.url
        model = ObedientModel()
        worker = WorkerThread(load(given, config=config, environ={}).settings, model, model)
        try:
            yield worker
        finally:
            worker.stop()

    def _read(self, topic: str) -> list[Any]:
        return read(self.broker, topic, self.topics.partitions)


@dataclass
class Outcomes:
    """Results and dead letters."""

    topic: str
    results: list[Any]
    dead: list[Any]

    def read(self, deserializer: Callable[..., Any]) -> list[Any]:
        context = SerializationContext(self.topic, MessageField.VALUE)
        return [deserializer(result.value, context) for result in self.results]

    @property
    def json(self) -> list[Any]:
        return [json.loads(result.value) for result in self.results]

    @property
    def reasons(self) -> list[str]:
        headers = [dict(letter.headers)["streamlabel-dead-letter"] for letter in self.dead]
        return sorted(json.loads(header)["reason"] for header in headers)


@pytest.fixture
def stage(broker: Broker, topics: Topics, registry: ApicurioRegistry, tmp_path: Path) -> Stage:
    return Stage(broker, topics, registry, tmp_path)


def test_avro_in_json_out(stage: Stage) -> None:
    section = "Avro in, JSON out"
    post = {"body": "I love this.", "posted_at": datetime(2026, 11, 27, tzinfo=UTC)}
    record = stage.avro(block(section, "json"), {"id": 7, "post": post})
    (result,) = stage.outcomes(section, [record]).json
    assert (result["message_id"], result["label"]) == ("7", "POSITIVE")


def test_avro_in_avro_out(stage: Stage) -> None:
    outcomes = stage.outcomes("Avro in, Avro out", [stage.avro(POST, LOVED)])
    (result,) = outcomes.read(AvroDeserializer(stage.client))
    assert (result["message_id"], result["label"]) == ("7", "POSITIVE")
    subject = f"{stage.topics.output}-value"
    registered = stage.registry.ask("GET", f"/subjects/{subject}/versions/latest")["schema"]
    assert json.loads(registered)["name"] == json.loads(CLASSIFICATION)["name"]


def test_the_result_inside_the_record(stage: Stage) -> None:
    key, value = stage.avro(POST, LOVED)
    assert value is not None
    outcomes = stage.outcomes("The result inside the record", [(key, value)])
    (result,) = outcomes.read(AvroDeserializer(stage.client))
    assert result.pop("classification")["label"] == "POSITIVE"
    assert result == LOVED
    assert outcomes.results[0].value[5:].startswith(value[5:])


def test_protobuf(stage: Stage, tmp_path: Path) -> None:
    section = "Protobuf"
    (tmp_path / "post.proto").write_text(block(section, "protobuf"), encoding="utf-8")
    out = tmp_path / "post.bin"
    assert protoc.main(["", f"-I{tmp_path}", f"--descriptor_set_out={out}", "post.proto"]) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    post = message_factory.GetMessageClass(pool.FindMessageTypeByName("com.example.Post"))
    serializer = ProtobufSerializer(post, stage.client, {"use.deprecated.format": False})
    message = post(id="7", content={"body": "I love this."})
    (result,) = stage.outcomes(section, [stage.framed(serializer, message)]).json
    assert (result["message_id"], result["label"]) == ("7", "POSITIVE")


def test_json_schema(stage: Stage) -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Post",
        "type": "object",
        "properties": {"id": {"type": "string"}, "text": {"type": "string"}},
    }
    serializer = JSONSerializer(json.dumps(schema), stage.client)
    outcomes = stage.outcomes("JSON Schema", [stage.framed(serializer, LOVED)])
    (result,) = outcomes.read(JSONDeserializer(None, schema_registry_client=stage.client))
    assert (result["message_id"], result["label"]) == ("7", "POSITIVE")


def test_topics_of_several_formats(stage: Stage) -> None:
    records = [stage.avro(POST, LOVED), (b"key", b'{"id": "8", "text": "In plain JSON."}')]
    results = stage.outcomes("Topics of several formats", records).json
    assert sorted(result["message_id"] for result in results) == ["7", "8"]


def test_subjects_and_registration(stage: Stage) -> None:
    """The schema is not registered by the worker: the registry has it under one subject only."""
    registered = stage.registry.register("streamlabel.Classification", CLASSIFICATION)
    outcomes = stage.outcomes("Subjects and registration", [stage.avro(POST, LOVED)])
    assert int.from_bytes(outcomes.results[0].value[1:5], "big") == registered
    assert f"{stage.topics.output}-value" not in stage.registry.ask("GET", "/subjects")


def test_change_events_of_databases(stage: Stage) -> None:
    section = "Change events of databases"
    envelope = block(section, "json")
    created = {"before": None, "after": {"id": 7, "review": "I love this."}, "op": "c"}
    deleted = {"before": {"id": 7, "review": None}, "after": None, "op": "d"}
    records = [stage.avro(envelope, created), stage.avro(envelope, deleted), (b"key", None)]
    outcomes = stage.outcomes(section, records, dead=2)
    assert [result["message_id"] for result in outcomes.json] == ["7"]
    assert outcomes.reasons == ["null_value", "path_missing"]


def test_json_of_kafka_connect(stage: Stage) -> None:
    section = "JSON of Kafka Connect"
    outcomes = stage.outcomes(section, [(b"key", block(section, "json").encode())])
    assert outcomes.json[0]["label"] == "POSITIVE"
