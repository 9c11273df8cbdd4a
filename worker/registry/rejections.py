"""The reasons for which a schema, or a body that should match it, is rejected.

Owns: the beginnings of the messages.
Thread: any; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from schemas.dead_letter import DeadLetterReason
from worker.errors import RecordRejected


def unusable(problem: str) -> RecordRejected:
    """Return the error of a schema that can't be used."""
    return RecordRejected(DeadLetterReason.UNUSABLE_SCHEMA, f"the schema can't be used: {problem}")


def mismatch(problem: str) -> RecordRejected:
    """Return the error of a body that does not match its schema. `problem` has no data of it."""
    return RecordRejected(
        DeadLetterReason.SCHEMA_MISMATCH, f"the value does not match its schema: {problem}"
    )
