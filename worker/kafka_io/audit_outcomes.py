"""Reads what the audit needs of an outcome: its record, its replay, and the group that it is of.

Owns: the way back from an outcome's bytes to these values.
Thread: any; pure.
Must not import: inference, runtime.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER, parse_source
from worker.core.dead_letters import last_header
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.replay import REPLAY_HEADER, Replay, parse_replay
from worker.core.replay_outcomes import Kind, Source
from worker.kafka_io.reader import AuditRecord

# The reason is the document's first member; parsing all of it would cost more than the rest.
_REASON = re.compile(rb'"reason"\s*:\s*"(\w+)"')
_TIMESTAMP = b'"timestamp_ms":'
_MAX_DIGITS = 20


class AuditedOutcome(NamedTuple):
    """One outcome.

    Attributes:
        source: coordinates of its input record; None if they can't be read.
        timestamp_ms: of its input record.
        replay: the replay that it is an outcome of, if any.
        group: of the backfill that it is of; empty for a worker's.
        reason: of a dead letter; empty for a result.
    """

    source: Source | None
    timestamp_ms: int
    replay: Replay | None
    group: bytes
    reason: str


def read_outcome(kind: Kind, record: AuditRecord) -> AuditedOutcome | None:
    """Return an outcome, or None for a record without coordinates."""
    coordinates = last_header(record.headers, SOURCE_HEADER)
    if coordinates is None:
        return None
    document = record.value
    if kind == "dead_letter":
        document = last_header(record.headers, DEAD_LETTER_HEADER) or b""
    return AuditedOutcome(
        parse_source(coordinates),
        _timestamp(document, record.timestamp_ms),
        parse_replay(last_header(record.headers, REPLAY_HEADER)),
        last_header(record.headers, GROUP_HEADER) or b"",
        _reason(document) if kind == "dead_letter" else "",
    )


def _timestamp(document: bytes, default: int) -> int:
    """Return the input record's timestamp, as the outcome's document states it.

    The outcome's own timestamp differs if the input's was too far ahead to be published. In an
    enriched object too, the last member of that name is the worker's. A result in Avro or Protobuf
    is no document, and its own timestamp counts: it ends with the bytes of a number, not with a
    brace, and a text in it may look like a member.
    """
    if not document.endswith(b"}"):
        return default
    at = document.rfind(_TIMESTAMP) + len(_TIMESTAMP)
    digits = document[at : at + _MAX_DIGITS].partition(b"}")[0]
    return int(digits) if digits.isdigit() else default


def _reason(dead_letter: bytes) -> str:
    match = _REASON.search(dead_letter)
    return match[1].decode("ascii", "replace") if match else "unknown"
