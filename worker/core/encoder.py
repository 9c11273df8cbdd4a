"""Encodes outcomes as records for the broker: results and dead letters.

`schemas` defines a result, but the encoder builds it of plain values: building the pydantic models
takes five times as long as the rest of a result. A test parses the encoder's output with the
models, and gets the same bytes back.

Owns: the bytes of results and dead letters.
Thread: publish; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.classification import ModelRef, SourceRef
from schemas.dead_letter import DeadLetter, DeadLetterReason, ValueState
from worker.core.absences import Parts
from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER, format_source
from worker.core.decided_members import added_members, judged
from worker.core.formats.format import ResultFormat
from worker.core.formats.plain_json import JsonResults
from worker.core.framing import describes_value
from worker.core.records import (
    TRACE_HEADERS,
    Classified,
    DeadLettered,
    Encoded,
    Filtered,
    Frame,
    Headers,
    ModelCard,
    Outcome,
    RawRecord,
    RecordRef,
    Trace,
    WorkItem,
)
from worker.core.replay import REPLAY_HEADER
from worker.core.route_headers import COPY_HEADER, FILTERED_HEADER, ROUTE_HEADER, FilteredNote
from worker.core.several import (
    first_verdict,
    is_uncertain,
    members_of_models,
    model_member,
    truncated,
    uniform,
)
from worker.core.topic_limits import TopicLimits
from worker.settings import OutputSettings, output_of

DEAD_LETTER_HEADER = "streamlabel-dead-letter"
_OWN_HEADERS = frozenset(
    {
        SOURCE_HEADER,
        DEAD_LETTER_HEADER,
        GROUP_HEADER,
        ROUTE_HEADER,
        COPY_HEADER,
        FILTERED_HEADER,
    }
)
_NAMESPACE = hashlib.sha1(uuid.NAMESPACE_URL.bytes, usedforsecurity=False)

# Bytes on the wire, rounded up: of a record batch and a record's fields, and of each header's
# lengths (https://kafka.apache.org/documentation/#messageformat).
_RECORD_OVERHEAD = 256
_HEADER_OVERHEAD = 10
# Bytes of a dead letter's context, rounded up: its message is short, and the rest is below 2 KiB.
_CONTEXT_BYTES = 3072

_FRAME_BYTES = 5  # of a schema registry's serializer

_SHORTEST, _LONGEST = 0.0, 1 / 3  # scores with the fewest and the most digits


class Encoder:
    """Encodes outcomes as set by `output.*`.

    Args:
        settings: topics and mode.
        version: of the worker, for dead letters.
        limits: limits of each output topic; topics may be added.
        results: serialises results. Default: as JSON.
        group: of a backfill, which its outcomes name.
    """

    def __init__(
        self,
        settings: OutputSettings,
        *,
        version: str,
        limits: Mapping[str, TopicLimits],
        results: ResultFormat | None = None,
        group: str | None = None,
    ) -> None:
        self._settings, self._results = settings, results or JsonResults()
        self._version = version
        self._limits = limits
        self._group: list[tuple[str, bytes | None]] = []
        if group:
            self._group.append((GROUP_HEADER, group.encode()))

    def encode(
        self, outcome: Outcome, *, now_ms: int, now: float, trace: Trace | None = None
    ) -> Encoded:
        """Encode one outcome; a result that its topic is known to refuse becomes a dead letter.

        Args:
            outcome: the outcome of a record.
            now_ms: wall clock, ms.
            now: monotonic clock, seconds.
            trace: replaces the input record's trace in a result. A dead letter keeps the original
                one, because it is a copy of the record.
        """
        if isinstance(outcome, DeadLettered):
            return self._dead_letter(outcome, now_ms)
        if isinstance(outcome, Filtered):
            return self.checked(self._note(outcome, now_ms), outcome, now_ms)
        return self.checked(self._result(outcome, now_ms, now, trace), outcome, now_ms)

    def encode_batch(
        self, outcomes: Iterable[Outcome], *, now_ms: int, now: float, trace: Trace | None = None
    ) -> list[Encoded]:
        """Encode the outcomes of a micro-batch, in their order."""
        return [self.encode(one, now_ms=now_ms, now=now, trace=trace) for one in outcomes]

    def checked(self, result: Encoded, outcome: Classified | Filtered, now_ms: int) -> Encoded:
        """Return the result or note, or a dead letter if its topic is known to refuse it."""
        limits = self._limits[result.topic]
        size, most = size_of(result), limits.most_bytes
        if size > most:
            reason = DeadLetterReason.RESULT_TOO_LARGE
            message = f"the result has {size} bytes, the topic accepts {most}"
        elif limits.keyless and result.key is None:
            reason = DeadLetterReason.RESULT_REFUSED
            message = f"the topic refused an earlier record without a key: {limits.keyless}"
        else:
            return result
        return self._dead_letter(refused_outcome(outcome, reason, message, result.topic), now_ms)

    def sizes(self, model: ModelCard) -> tuple[int, int]:
        """Return the least and the usual bytes of a model's result without key, headers and id."""
        record = RawRecord(RecordRef("", 0, 0, 0), 0, None, b"{}", (), 0.0)
        item = WorkItem(record, "", payload={}, frame=Frame(0, bytes(_FRAME_BYTES)))

        def size(score: float) -> int:
            prediction, parts = uniform(model, score)
            outcome = Classified(item, prediction, model, parts)
            return size_of(self._result(outcome, 0, 0.0, None))

        return size(_SHORTEST), size(_LONGEST)

    def _result(
        self,
        outcome: Classified,
        now_ms: int,
        now: float,
        trace: Trace | None,
        topic: str | None = None,
    ) -> Encoded:
        record, prediction = outcome.item.record, outcome.prediction
        topic = topic or output_of(self._settings.topic, record.source.topic)
        limits = self._limits[topic]
        timestamp_ms = self._timestamp(record, limits, now_ms)
        if outcome.parts is not None:
            label, score, decided = first_verdict(outcome.parts)
            document = self._classifications(outcome, outcome.parts, now_ms, now)
        else:
            label, score, decided = judged(outcome.model, prediction)
            document = self._classification(outcome, label, score, now_ms, now)
            if outcome.model.adds_members:
                document |= added_members(outcome.model, prediction, decided)
        if self._settings.mode == "enrich":
            value = self._results.enriched(outcome.item, document, topic)
        else:
            value = self._results.classification(document, topic)
        return Encoded(
            ref=record.ref,
            topic=topic,
            key=record.key,
            value=value,
            headers=self._headers(record, _result_headers(record.headers, trace)),
            timestamp_ms=timestamp_ms,
            label=label,
            score=score,
            decided=decided,
            uncertain=outcome.model.decides and is_uncertain(outcome.model, label),
            truncated=prediction.truncated if outcome.parts is None else truncated(outcome.parts),
            trace_id=trace.id if trace else None,
            expired=limits.expired(timestamp_ms, now_ms),
            outcome=outcome,
            origin=record.origin,
        )

    def _note(self, outcome: Filtered, now_ms: int) -> Encoded:
        """Return the note of a filtered record: its key, its coordinates and the reason."""
        record, topic = outcome.item.record, self._settings.filtered_topic or ""
        limits = self._limits[topic]
        timestamp_ms = self._timestamp(record, limits, now_ms)
        digest = outcome.model.settings_digest if outcome.model else ""
        facts = (outcome.reason, outcome.route, digest, record.timestamp_ms)
        headers = self._headers(record, _last(REPLAY_HEADER, record.headers))
        return Encoded(
            ref=record.ref,
            topic=topic,
            key=record.key,
            value=None,
            headers=[*headers, FilteredNote(*facts).header],
            timestamp_ms=timestamp_ms,
            expired=limits.expired(timestamp_ms, now_ms),
            outcome=outcome,
            origin=record.origin,
            filtered=outcome.reason,
            route=outcome.route,
        )

    def _timestamp(self, record: RawRecord, limits: TopicLimits, now_ms: int) -> int:
        """Return the record's timestamp, or now if that is set or if the topic would refuse it."""
        if self._settings.timestamp == "labelled":
            return now_ms
        return limits.timestamp(record.timestamp_ms, now_ms)

    def _classification(
        self, outcome: Classified, label: str, score: float, now_ms: int, now: float
    ) -> dict[str, Any]:
        """Return the members of `schemas.classification.Classification`, in its order."""
        record, prediction, model = outcome.item.record, outcome.prediction, outcome.model
        return {
            "id": result_id(record, model.identity),
            "message_id": outcome.item.message_id,
            "label": label,
            "score": score,
            "labels": [
                {"label": name, "score": probability}
                for name, probability in zip(model.labels, prediction.probabilities, strict=True)
            ],
            "token_count": prediction.token_count,
            "truncated": prediction.truncated,
            "source": _source_member(record),
            "model": model_member(model),
            "processed_at": _moment(now_ms),
            "processing_ms": round((now - record.polled_at) * 1000, 3),
        }

    def _classifications(
        self, outcome: Classified, parts: Parts, now_ms: int, now: float
    ) -> dict[str, Any]:
        """Return the members of `schemas.classifications.Classifications`, in its order."""
        record = outcome.item.record
        return {
            "id": result_id(record, outcome.model.identity),
            "message_id": outcome.item.message_id,
            **members_of_models(parts),
            "source": _source_member(record),
            "model": model_member(outcome.model),
            "processed_at": _moment(now_ms),
            "processing_ms": round((now - record.polled_at) * 1000, 3),
        }

    def _dead_letter(self, outcome: DeadLettered, now_ms: int) -> Encoded:
        record, limits = outcome.record, self._limits[self._settings.dead_letter_topic]
        timestamp_ms = self._timestamp(record, limits, now_ms)
        key, headers = self._key_and_headers(record)
        value = record.value or b""
        value_bytes = record.cut.value_bytes if record.cut else len(value)
        kept = value[: max(self._room(key, headers), 0)]
        state = ValueState.WHOLE if len(kept) == value_bytes else ValueState.CUT
        complete = key == record.key and len(headers) == len(record.headers)
        context = DeadLetter(
            reason=outcome.reason,
            message=outcome.message[:500],
            source=_source(record),
            value_state=ValueState.NULL if record.value is None else state,
            value_bytes=value_bytes,
            complete=complete and (record.cut is None or record.cut.complete),
            stack_hash=outcome.stack_hash,
            attempt=outcome.attempt,
            worker_version=self._version,
            failed_at=_moment(now_ms),
            model=_model(outcome.model) if outcome.model else None,
        )
        document = context.model_dump_json().encode()
        return Encoded(
            ref=record.ref,
            topic=self._settings.dead_letter_topic,
            key=key,
            value=kept,
            headers=[*self._headers(record, headers), (DEAD_LETTER_HEADER, document)],
            timestamp_ms=timestamp_ms,
            reason=outcome.reason,
            expired=limits.expired(timestamp_ms, now_ms),
            outcome=outcome,
            origin=record.origin,
        )

    def _key_and_headers(self, record: RawRecord) -> tuple[bytes | None, Headers]:
        """Return the key and headers that fit: a refused dead letter would stop the worker."""
        if self._room(record.key, record.headers) >= 0:
            return record.key, record.headers
        # Without it the attempts of a replay would be counted from the start again.
        needed = _last(REPLAY_HEADER, record.headers)
        needed += _last(GROUP_HEADER, record.headers) if record.origin else []
        return (record.key if self._room(record.key, needed) >= 0 else None), needed

    def _room(self, key: bytes | None, headers: Headers) -> int:
        limits = self._limits[self._settings.dead_letter_topic]
        own = (*self._group, *headers)
        return limits.most_bytes - _overhead(key, own) - _CONTEXT_BYTES

    def _headers(self, record: RawRecord, original: Headers) -> list[tuple[str, bytes | None]]:
        """Return the input's headers with the worker's, which replace those of a replay or a chain.

        A record that was read from its dead letter belongs to the group of the dead letter.
        """
        topic, partition, offset, _ = record.source
        kept = [(name, value) for name, value in original if name not in _OWN_HEADERS]
        group = self._group if record.origin is None else _last(GROUP_HEADER, record.headers)
        return [*kept, (SOURCE_HEADER, format_source(topic, partition, offset)), *group]


def refused_outcome(
    outcome: Classified | Filtered, reason: DeadLetterReason, message: str, topic: str
) -> DeadLettered:
    """Return what takes the place of a result, copy or note that its topic refuses."""
    record, model = outcome.item.record, outcome.model
    return DeadLettered(record, reason, message, model=model, refused_by=topic)


def size_of(encoded: Encoded) -> int:
    """Return the bytes of an outcome on the wire, rounded up."""
    return record_size(encoded.key, encoded.value, encoded.headers)


def record_size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return the bytes of a record on the wire, rounded up."""
    return len(value or b"") + _overhead(key, headers)


def result_id(record: RawRecord, identity: str) -> str:
    """Return the UUID version 5 (RFC 9562) of the record's coordinates and the model's identity.

    Args:
        record: the input record.
        identity: of the model, as its card tells it.
    """
    topic, partition, offset, _ = record.source
    digest = _NAMESPACE.copy()
    digest.update(f"{topic}/{partition}/{offset}#{identity}".encode())
    # `uuid.uuid5` would build an object first, and take six times as long.
    d = digest.hexdigest()
    variant = "89ab"[int(d[16], 16) & 3]
    return f"{d[:8]}-{d[8:12]}-5{d[13:16]}-{variant}{d[17:20]}-{d[20:32]}"


def _last(name: str, headers: Headers) -> list[tuple[str, bytes | None]]:
    return [header for header in headers if header[0] == name][-1:]


def _result_headers(headers: Headers, trace: Trace | None) -> Headers:
    """Return the input's headers that hold for its result, with its trace."""
    # A result is no value of the record's schema.
    kept = [header for header in headers if not describes_value(header[0])]
    if trace is None:
        return kept
    untraced = (header for header in kept if header[0] not in TRACE_HEADERS)
    return (*untraced, (TRACE_HEADERS[0], trace.header))


def _overhead(key: bytes | None, headers: Headers) -> int:
    size = _RECORD_OVERHEAD + len(key or b"")
    for name, value in headers:
        size += len(name) * 4 + len(value or b"") + _HEADER_OVERHEAD
    return size


def _source_member(record: RawRecord) -> dict[str, Any]:
    topic, partition, offset, _ = record.source
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp_ms": record.timestamp_ms,
    }


def _source(record: RawRecord) -> SourceRef:
    topic, partition, offset, _ = record.source
    return SourceRef(
        topic=topic, partition=partition, offset=offset, timestamp_ms=record.timestamp_ms
    )


@functools.lru_cache(maxsize=1)
def _model(card: ModelCard) -> ModelRef:
    return ModelRef(name=card.name, revision=card.revision, weights_sha256=card.weights_sha256)


@functools.lru_cache(maxsize=1)  # the outcomes of a micro-batch have one time
def _moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms / 1000, UTC)
