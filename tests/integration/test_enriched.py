"""Results that are added to framed records, on a real broker and a real registry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.integration.test_schemas import Writer, decoded, labelled, options, send, verdict
from tests.support.registry import ApicurioRegistry, new_subject
from tests.support.workers import audit, produce, read, running, wait_until
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.errors import SchemaRefused

pytestmark = pytest.mark.integration

ENRICH: dict[str, Any] = {"output__format": "avro", "output__mode": "enrich"}


def test_a_refused_enriched_schema_stops_the_worker_and_loses_nothing(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    """Both kinds of record are labelled after a change of the setting that the error names."""
    writer = Writer(registry, topics.input)
    other = {"type": "record", "name": "Note", "fields": [{"name": "text", "type": "string"}]}
    number = registry.register(new_subject(), json.dumps(other))
    send(broker, topics.input, 0, *map(writer.value, range(5)))
    with running(broker, topics, **options(registry, **ENRICH)) as worker:
        labelled(worker, 5)
        wait_until(lambda: audit(broker, topics)["pending"] == 0, what="all is committed")
        note = b"\0" + number.to_bytes(4, "big") + b"\x04hi"
        send(broker, topics.input, 1, note, note)
        worker.join()
    assert isinstance(worker.error, SchemaRefused)
    for part in (f"subject '{topics.output}-value'", "answers 409", "subject_name_strategy"):
        assert part in str(worker.error)
    assert audit(broker, topics)["pending"] == 2
    more = {**ENRICH, "registry__subject_name_strategy": "topic_record_name"}
    with running(broker, topics, **options(registry, **more)) as worker:
        labelled(worker, 2)
        verdict(broker, topics, 7)
    values = [one.value for one in read(broker, topics.output, topics.partitions)]
    assert [decoded(registry, value)["text"] for value in values].count("hi") == 2
    assert registry.ask("GET", f"/subjects/{topics.output}-Note/versions") == [1]


def test_a_record_whose_schema_has_no_place_for_the_result_is_a_dead_letter(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    """With its bytes, and the reason; the others are labelled."""
    taken = {"name": "classification", "type": "string", "default": ""}
    values = [Writer(registry, topics.input).value(1)]
    values.append(Writer(registry, topics.input, taken).value(2, classification="mine"))
    send(broker, topics.input, 0, *values)
    with running(broker, topics, **options(registry, **ENRICH)) as worker:
        labelled(worker, 1)
        wait_until(lambda: audit(broker, topics)["pending"] == 0, what="all is committed")
    (letter,) = read(broker, topics.dead, topics.partitions)
    context = json.loads(dict(letter.headers)[DEAD_LETTER_HEADER] or b"")
    assert (letter.value, context["reason"]) == (values[1], "unusable_schema")
    assert "has a field 'classification' already" in context["message"]


def test_a_result_is_added_to_json_whose_schema_a_header_names(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    """The result has its own schema, in front of it, and no header that names another one."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"text": {"type": "string"}, "n": {"type": "number"}},
        "additionalProperties": False,
    }
    number = registry.register(f"{topics.input}-value", json.dumps(schema), "JSON")
    header = b"\0" + number.to_bytes(4, "big")
    body = b'{"text":"hi","n":1.50}'
    headers = [("__value_schema_id", header), ("x", b"1")]
    produce(broker, topics.input, [(b"k", body)], partition=0, headers=headers)
    more = {"output__format": "json_schema", "output__mode": "enrich"}
    with running(
        broker, topics, **options(registry, **more) | {"input__format": "json_schema"}
    ) as worker:
        labelled(worker, 1)
    (result,) = read(broker, topics.output, topics.partitions)
    assert [name for name, _ in result.headers] == ["x", "streamlabel-source"]
    assert result.value[5:].startswith(b'{"text":"hi","n":1.50,"classification":{')
    id_ = int.from_bytes(result.value[1:5], "big")
    enriched = json.loads(registry.ask("GET", f"/schemas/ids/{id_}")["schema"])
    assert enriched["properties"]["classification"]["title"] == "Classification"
