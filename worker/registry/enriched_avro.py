"""Adds the result to an Avro schema, as one last field.

A record's encoding is that of its fields, in order. So a record of the enriched schema is the
original body followed by the result's bytes, and no part of the body is encoded again.

Owns: the reasons for which an Avro schema can't be enriched.
Thread: registry; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from schemas.avro import avro_schema
from schemas.dead_letter import DeadLetterReason
from schemas.forms import PLAIN, ResultForm
from worker.errors import RecordRejected
from worker.registry.recursive_avro import definitions, unrolled
from worker.registry.schema import RegisteredSchema


def enriched_avro(schema: RegisteredSchema, form: ResultForm = PLAIN) -> str:
    """Return the text of the schema with the result as the last field.

    Raises:
        RecordRejected: its records can't have such a field.
    """
    root, (result, own) = json.loads(schema.text), _added(form)
    if not isinstance(root, dict) or root.get("type") != "record":
        raise _refused("its root is not a record, and only a record has a place for the result")
    if any(field["name"] == form.member for field in root["fields"]):
        raise _refused(
            f"its record has a field {form.member!r} already, which can't be replaced: with "
            'output.mode = "classification" the result is published alone'
        )
    texts = (json.loads(text) for text in schema.resolved.values())
    defined = {name for node in (root, *texts) for name, _ in definitions(node)}
    if twice := defined & own:
        raise _refused(f"it defines {min(twice)}, which is the name of a type of the result")
    added = {"name": form.member, "type": result, "doc": result["doc"]}
    root = unrolled(root)
    return json.dumps({**root, "fields": [*root["fields"], added]}, separators=(",", ":"))


def _refused(problem: str) -> RecordRejected:
    return RecordRejected(
        DeadLetterReason.UNUSABLE_SCHEMA, f"a result can't be added to this Avro schema: {problem}"
    )


@functools.cache
def _added(form: ResultForm) -> tuple[Any, frozenset[str]]:
    """Return the schema of a result, and the names that it defines."""
    result = avro_schema(form.model)
    return result, frozenset(name for name, _ in definitions(result))
