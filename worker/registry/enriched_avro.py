"""Adds the result to an Avro schema, as one last field.

A record's encoding is that of its fields, in order. So a record of the enriched schema is the
original body followed by the result's bytes, and no part of the body is encoded again.

Owns: the reasons for which an Avro schema can't be enriched.
Thread: registry; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import json
from typing import Final

from schemas.avro import avro_schema
from schemas.classification import Classification
from schemas.dead_letter import DeadLetterReason
from worker.core.formats.plain_json import ENRICHED_MEMBER
from worker.errors import RecordRejected
from worker.registry.recursive_avro import definitions, unrolled
from worker.registry.schema import RegisteredSchema


def enriched_avro(schema: RegisteredSchema) -> str:
    """Return the text of the schema with the result as the last field.

    Raises:
        RecordRejected: its records can't have such a field.
    """
    root = json.loads(schema.text)
    if not isinstance(root, dict) or root.get("type") != "record":
        raise _refused("its root is not a record, and only a record has a place for the result")
    if any(field["name"] == ENRICHED_MEMBER for field in root["fields"]):
        raise _refused(
            f"its record has a field {ENRICHED_MEMBER!r} already, which can't be replaced: with "
            'output.mode = "classification" the result is published alone'
        )
    texts = (json.loads(text) for text in schema.resolved.values())
    defined = {name for node in (root, *texts) for name, _ in definitions(node)}
    if twice := defined & _OWN:
        raise _refused(f"it defines {min(twice)}, which is the name of a type of the result")
    added = {"name": ENRICHED_MEMBER, "type": _RESULT, "doc": _RESULT["doc"]}
    root = unrolled(root)
    return json.dumps({**root, "fields": [*root["fields"], added]}, separators=(",", ":"))


def _refused(problem: str) -> RecordRejected:
    return RecordRejected(
        DeadLetterReason.UNUSABLE_SCHEMA, f"a result can't be added to this Avro schema: {problem}"
    )


_RESULT: Final = avro_schema(Classification)
_OWN: Final = frozenset(name for name, _ in definitions(_RESULT))
