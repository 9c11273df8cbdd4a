"""Adds the result to an Avro schema, as one last field.

A record's encoding is that of its fields, in order. So a record of the enriched schema is the
original body followed by the result's bytes, and no part of the body is encoded again.

Owns: the reasons for which an Avro schema can't be enriched.
Thread: registry; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from schemas.avro import avro_schema
from schemas.classification import Classification
from schemas.dead_letter import DeadLetterReason
from worker.core.formats.plain_json import ENRICHED_MEMBER
from worker.errors import RecordRejected
from worker.registry.schema import RegisteredSchema
from worker.registry.subjects import full_name

_NAMED: Final = ("record", "error", "enum", "fixed")
_PARTS: Final = ("type", "items", "values", "fields")


def enriched_avro(schema: RegisteredSchema) -> str:
    """Return the text of the schema with the result as the last field.

    Raises:
        RecordRejected: its records can't have such a field.
    """
    root = json.loads(schema.text)
    if not isinstance(root, dict) or root.get("type") != "record":
        raise _refused("its root is not a record, and only a record has a place for the result")
    fields = root["fields"]
    if any(field["name"] == ENRICHED_MEMBER for field in fields):
        raise _refused(
            f"its record has a field {ENRICHED_MEMBER!r} already, which can't be replaced: with "
            'output.mode = "classification" the result is published alone'
        )
    texts = (json.loads(text) for text in schema.resolved.values())
    defined = {name for node in (root, *texts) for name in _definitions(node)}
    if twice := defined & _OWN:
        raise _refused(f"it defines {min(twice)}, which is the name of a type of the result")
    added = {"name": ENRICHED_MEMBER, "type": _RESULT, "doc": _RESULT["doc"]}
    return json.dumps({**root, "fields": [*fields, added]}, separators=(",", ":"))


def _definitions(schema: Any) -> Iterator[str]:
    """Yield the full names of the types that a schema defines."""
    nodes: list[tuple[Any, str]] = [(schema, "")]
    while nodes:
        node, namespace = nodes.pop()
        if isinstance(node, list):
            nodes += [(each, namespace) for each in node]
        elif isinstance(node, dict):
            if node.get("type") in _NAMED:
                name = full_name(node, namespace)
                yield name
                namespace = name.rpartition(".")[0]
            nodes += [(node[part], namespace) for part in _PARTS if part in node]


def _refused(problem: str) -> RecordRejected:
    return RecordRejected(
        DeadLetterReason.UNUSABLE_SCHEMA, f"a result can't be added to this Avro schema: {problem}"
    )


_RESULT: Final = avro_schema(Classification)
_OWN: Final = frozenset(_definitions(_RESULT))
