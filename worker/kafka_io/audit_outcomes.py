"""Reads what the audit needs of an outcome: its record, its replay, its route and its group.

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
from worker.core.route_headers import (
    COPY_HEADER,
    FILTERED_HEADER,
    ROUTE_HEADER,
    CopyNote,
    parse_filtered,
    parse_route,
)
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
        reason: of a dead letter, or of a filtered record; empty for a result.
        copies: those that it announces.
        copy_route: route of a copy, or of a refused copy; None for a main outcome.
        digest: of the settings that filtered the record.
        routed: whether a route sent it, or announced copies beside it.
    """

    source: Source | None
    timestamp_ms: int
    replay: Replay | None
    group: bytes
    reason: str = ""
    copies: tuple[CopyNote, ...] = ()
    copy_route: str | None = None
    digest: str = ""
    routed: bool = False


def read_outcome(kind: Kind, record: AuditRecord) -> AuditedOutcome | None:
    """Return an outcome, or None for a record without coordinates."""
    coordinates = last_header(record.headers, SOURCE_HEADER)
    if coordinates is None:
        return None
    source, group = parse_source(coordinates), last_header(record.headers, GROUP_HEADER) or b""
    replay = parse_replay(last_header(record.headers, REPLAY_HEADER))
    copy, route = (
        last_header(record.headers, COPY_HEADER),
        last_header(record.headers, ROUTE_HEADER),
    )
    at, reason, digest = _facts(kind, record)
    return AuditedOutcome(
        source,
        at,
        replay,
        group,
        reason,
        copies=() if route is None else parse_route(route).copies,
        copy_route=None if copy is None else copy.decode(errors="replace"),
        digest=digest,
        routed=route is not None or copy is not None,
    )


def _facts(kind: Kind, record: AuditRecord) -> tuple[int, str, str]:
    """Return the input record's timestamp, and the reason and the digest of its outcome."""
    if kind == "filtered":
        note = parse_filtered(last_header(record.headers, FILTERED_HEADER))
        return note.timestamp_ms or record.timestamp_ms, note.words, note.settings
    if kind == "dead_letter":
        document = last_header(record.headers, DEAD_LETTER_HEADER) or b""
        return _timestamp(document, record.timestamp_ms), _reason(document), ""
    return _timestamp(record.value, record.timestamp_ms), "", ""


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
