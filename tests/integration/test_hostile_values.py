"""Hostile values and schemas on a real registry: a dead letter each, and the worker goes on."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.registry import ApicurioRegistry
from tests.support.schemas import avro_bytes, record
from tests.support.workers import WorkerThread, produce, read, running, wait_until
from worker.core.encoder import DEAD_LETTER_HEADER

pytestmark = pytest.mark.integration

NODE = record(("text", "string"), ("next", ["null", "Node"]), name="Node")
NULLS = record(("text", "string"), ("nulls", {"type": "array", "items": "null"}), name="Nulls")
MESSAGE = 'syntax = "proto3"; message Post { string text = 1; Post inner = 2; }'


def framed(number: int, body: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + body


def outcomes(
    worker: WorkerThread, broker: Broker, topics: Topics, labelled: int, dead: int
) -> list[Any]:
    """Return the dead letters once there are as many results and dead letters."""
    wait_until(lambda: worker.published >= labelled, what=f"{labelled} records are labelled")
    letters: list[Any] = []

    def written() -> bool:
        letters[:] = read(broker, topics.dead, topics.partitions)
        return len(letters) >= dead

    wait_until(written, what=f"there are {dead} dead letters")
    return letters


def test_every_hostile_value_becomes_a_dead_letter_with_its_bytes(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    name = topics.input
    node = registry.register(f"{name}-node", json.dumps(NODE))
    nulls = registry.register(f"{name}-nulls", json.dumps(NULLS))
    message = registry.register(f"{name}-message", MESSAGE, "PROTOBUF")
    good = [
        framed(node, avro_bytes(NODE, {"text": "good", "next": {"text": "b", "next": None}})),
        framed(message, b"\0\x0a\4good"),
        b'{"text": "good"}',
    ]
    bad = {
        framed(node, b"\2a\2" * 100_000): "schema_mismatch",
        framed(node, b"\2\xff\0"): "schema_mismatch",
        framed(nulls, b"\2a" + b"\x80" * 8 + b"\x40"): "schema_mismatch",
        framed(message, b"\0" + b"\x13" * 100_000): "schema_mismatch",
        framed(message, b"\2\4"): "schema_mismatch",
        framed(0x7FFFFFF1, b"body"): "unknown_schema",
        b"\3\0" + uuid.uuid4().bytes + b"body": "unknown_schema",
        bytes(8) + b"\7body": "unknown_schema",
        framed(nulls, b"\0\0"): "empty_text",
        b"no frame": "not_json",
    }
    values = [value for one in bad for value in (one, *good)]
    produce(broker, name, [(b"k", value) for value in values], partition=0)
    options: dict[str, Any] = {
        "input__format": "auto",
        "registry__url": registry.url,
        "max_unreadable_ratio": 1,
    }
    with running(broker, topics, **options) as worker:
        letters = outcomes(worker, broker, topics, len(bad) * len(good), len(bad))
    reasons = {
        letter.value: json.loads(dict(letter.headers)[DEAD_LETTER_HEADER])["reason"]
        for letter in letters
    }
    assert reasons == bad
    assert len(read(broker, topics.output, topics.partitions)) == len(bad) * len(good)


CHANGE = record(
    ("before", ["null", record(("id", "long"), ("text", ["null", "string"]), name="Row")]),
    ("after", ["null", "Row"]),
    ("op", "string"),
    name="Envelope",
)


def test_change_events_of_a_database_are_labelled(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    """Insert, update, delete and the tombstone behind it."""
    number = registry.register(f"{topics.input}-value", json.dumps(CHANGE))
    old, new = {"id": 7, "text": "old"}, {"id": 7, "text": "new"}
    events = [("c", None, old), ("u", old, new), ("d", new, None)]
    values: list[bytes | None] = [
        framed(number, avro_bytes(CHANGE, {"before": before, "after": after, "op": op}))
        for op, before, after in events
    ]
    produce(broker, topics.input, [(b"7", value) for value in [*values, None]], partition=0)
    options: dict[str, Any] = {
        "input__format": "avro",
        "input__text_path": "after.text",
        "input__id_path": "after.id",
        "registry__url": registry.url,
        "max_unreadable_ratio": 1,
    }
    with running(broker, topics, **options) as worker:
        letters = outcomes(worker, broker, topics, 2, 2)
    results = read(broker, topics.output, topics.partitions)
    assert [json.loads(result.value)["message_id"] for result in results] == ["7", "7"]
    contexts = [json.loads(dict(letter.headers)[DEAD_LETTER_HEADER]) for letter in letters]
    assert [context["reason"] for context in contexts] == ["path_missing", "null_value"]
    assert contexts[0]["message"] == "no member at 'after.text': 'after' is null"
