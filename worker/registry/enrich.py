"""Adds the result to the schemas of records: the writer's schema, and `classification`.

The enriched schema is registered for the output when the first record of a writer's schema comes.
Its references are those of the writer's schema.

Owns: the choice by the schema's type.
Thread: registry.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from schemas.dead_letter import DeadLetterReason
from schemas.forms import PLAIN, ResultForm
from worker.errors import RecordRejected
from worker.registry.enriched_avro import enriched_avro
from worker.registry.enriched_json import enriched_json
from worker.registry.schema import RegisteredSchema
from worker.registry.subjects import FrameOf
from worker.settings import output_of


class Enrichment:
    """Registers the enriched schemas of output topics.

    Args:
        frame_of: registers a schema.
        output: the topic that the results go to; `{topic}` in it stands for the input topic.
        form: of the results.
        routed: further topics that results go to, by routes; named as `output` is. A schema has one
            id in all of them, and each topic's readers find it under a subject of the topic.
    """

    def __init__(
        self,
        frame_of: FrameOf,
        output: str,
        form: ResultForm = PLAIN,
        routed: Sequence[str] = (),
    ) -> None:
        self._frame_of, self._form = frame_of, form
        self._outputs = (output, *routed)

    def __call__(self, schema: RegisteredSchema, topic: str) -> bytes:
        """Return the frame of an input topic's records of this schema with their results.

        Raises:
            RecordRejected: nothing can be added to records of this schema.
            RegistryAway: the registry does not answer; call again.
            SchemaRefused: it refuses the enriched schema.
        """
        enriched = enriched_schema(schema, self._form)
        names = dict.fromkeys(output_of(output, topic) for output in self._outputs)
        frame, *_ = [self._frame_of(enriched, name) for name in names]
        return frame


# Too deep; or a regular expression repeats something more often than a machine can count.
_ODD: Final = (RecursionError, OverflowError)


def enriched_schema(schema: RegisteredSchema, form: ResultForm = PLAIN) -> RegisteredSchema:
    """Return the schema of a writer's records with their results of this form.

    Raises:
        RecordRejected: nothing can be added to records of this schema.
    """
    if schema.type == "PROTOBUF":
        raise RecordRejected(
            DeadLetterReason.UNUSABLE_SCHEMA, "a result can't be added to a Protobuf message"
        )
    add = enriched_avro if schema.type == "AVRO" else enriched_json
    try:
        return replace(schema, text=add(schema, form))
    except (ValueError, LookupError, TypeError, AttributeError, *_ODD) as error:
        raise RecordRejected(
            DeadLetterReason.UNUSABLE_SCHEMA,
            f"a result can't be added to this schema, which is malformed: {type(error).__name__}",
        ) from None
