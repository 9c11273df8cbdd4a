"""Replaces an outcome that its topic refused.

| refused | for its size | for its timestamp | for another reason |
|---|---|---|---|
| a result | a dead letter | the current time | a dead letter with the broker's message |
| a dead letter | a shorter value | the current time | the worker stops |

Each refusal corrects the topic's `TopicLimits`, so that later records are not refused for the same
reason.

Owns: the choice of the replacement.
Thread: publish; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from schemas.dead_letter import DeadLetterReason
from worker.core.copies import same_part
from worker.core.encoder import Encoder, refused_outcome, size_of
from worker.core.records import Classified, DeadLettered, Encoded, Filtered
from worker.core.topic_limits import Refusal, TopicLimits
from worker.errors import PublishRefused

ReplaceOutcome = Callable[[Encoded, Refusal | None], Encoded]

# A refused timestamp that is this recent was set by the worker: the clocks of worker and broker
# differ.
_JUST_NOW_MS = 60_000


class OutcomeReplacer:
    """Replaces refused outcomes.

    Args:
        encoder: encodes dead letters.
        limits: limits by output topic; the same objects as the encoder's.
        now_ms: reads the wall clock.
    """

    def __init__(
        self, encoder: Encoder, limits: Mapping[str, TopicLimits], now_ms: Callable[[], int]
    ) -> None:
        self._encoder, self._limits, self._now_ms = encoder, limits, now_ms

    def replace(self, sent: Encoded, refusal: Refusal | None) -> Encoded:
        """Return the record to send next: a replacement, or the same record.

        Args:
            sent: the record that was refused, or that has to be sent again because another record
                of its batch was refused.
            refusal: the broker's refusal; None if another record was refused. The record is checked
                against the corrected limits in either case.

        Raises:
            PublishRefused: there is no replacement; names the record, with the broker's message.
        """
        now_ms = self._now_ms()
        if refusal is None:
            return same_part(sent, self._reviewed(sent, now_ms))
        return same_part(sent, self._replaced(sent, refusal, now_ms))

    def _reviewed(self, sent: Encoded, now_ms: int) -> Encoded:
        limits, outcome = self._limits[sent.topic], sent.outcome
        timestamp_ms = limits.timestamp(sent.timestamp_ms, now_ms)
        if timestamp_ms != sent.timestamp_ms:
            sent = replace(sent, timestamp_ms=timestamp_ms, expired=False)
        if isinstance(outcome, Classified | Filtered):
            return self._encoder.checked(sent, outcome, now_ms)
        if isinstance(outcome, DeadLettered) and size_of(sent) > limits.most_bytes:
            return self._encoder.encode(outcome, now_ms=now_ms, now=0.0)
        return sent

    def _replaced(self, refused: Encoded, refusal: Refusal, now_ms: int) -> Encoded:
        outcome = refused.outcome
        if refusal.kind == "timestamp" and abs(now_ms - refused.timestamp_ms) > _JUST_NOW_MS:
            limits = self._limits[refused.topic]
            limits.refused_timestamp(refused.timestamp_ms, now_ms, refusal.message)
            return replace(refused, timestamp_ms=now_ms, expired=False)
        if isinstance(outcome, Classified | Filtered):
            return self._dead_letter(refused, outcome, refusal, now_ms)
        if isinstance(outcome, DeadLettered) and refusal.kind == "size":
            return self._cut(refused, outcome, refusal, now_ms)
        raise publish_refused(refused, refusal)

    def _dead_letter(
        self, refused: Encoded, outcome: Classified | Filtered, refusal: Refusal, now_ms: int
    ) -> Encoded:
        limits, message = self._limits[refused.topic], refusal.message
        reason = DeadLetterReason.RESULT_REFUSED
        if refusal.kind == "size":
            size, reason = size_of(refused), DeadLetterReason.RESULT_TOO_LARGE
            message = f"the result has {size} bytes: {message}"
            limits.refused_size(size, cut=False)
        elif refused.key is None and "without key" in message:
            limits.keyless = message
        dead_lettered = refused_outcome(outcome, reason, message, refused.topic)
        return self._encoder.encode(dead_lettered, now_ms=now_ms, now=0.0)

    def _cut(
        self, refused: Encoded, outcome: DeadLettered, refusal: Refusal, now_ms: int
    ) -> Encoded:
        size = size_of(refused)
        self._limits[refused.topic].refused_size(size, cut=True)
        smaller = self._encoder.encode(outcome, now_ms=now_ms, now=0.0)
        if size_of(smaller) >= size:
            raise publish_refused(refused, refusal)
        return smaller


def give_up(sent: Encoded, refusal: Refusal | None) -> Encoded:
    """Return the record, without any replacement.

    Raises:
        PublishRefused: the record was refused.
    """
    if refusal is None:
        return sent
    raise publish_refused(sent, refusal)


def publish_refused(refused: Encoded, refusal: Refusal) -> PublishRefused:
    """Return the error for a record without a replacement."""
    topic, partition, offset, _ = refused.ref
    kind = f"the dead letter ({refused.reason})" if refused.reason else "the result"
    return PublishRefused(
        f"topic {refused.topic!r} refuses {kind} of {topic}[{partition}] offset {offset}, "
        f"{size_of(refused)} bytes: {refusal.message}. Change that topic, or move the group's "
        f"offset of this partition past {offset}"
    )
