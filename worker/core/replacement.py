"""Another outcome for a record whose first one a topic refused. Pure; on the publish thread.

| refused | for its size | for its timestamp | for anything else |
|---|---|---|---|
| a result | a dead letter | sent with the time of now | a dead letter with the broker's words |
| a dead letter | cut further | sent with the time of now | the worker stops |

Each refusal corrects the topic's `Terms`, so later records are not refused for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from schemas.dead_letter import DeadLetterReason
from worker.core.encoder import Encoder, size_of
from worker.core.records import Classified, DeadLettered, Encoded
from worker.core.terms import Refusal, Terms
from worker.errors import PublishRefused

ReplaceOutcome = Callable[[Encoded, Refusal | None], Encoded]

# A timestamp that was replaced a moment ago and is refused again: the clocks are at odds.
_JUST_NOW_MS = 60_000


class OutcomeReplacer:
    """Makes the next outcome of a record.

    Args:
        encoder: makes dead letters.
        terms: of each output topic; the encoder's own.
        now_ms: reads the wall clock.
    """

    def __init__(
        self, encoder: Encoder, terms: Mapping[str, Terms], now_ms: Callable[[], int]
    ) -> None:
        self._encoder, self._terms, self._now_ms = encoder, terms, now_ms

    def replace(self, sent: Encoded, refusal: Refusal | None) -> Encoded:
        """Another outcome to send, or the same again.

        Args:
            sent: it was refused, or is to be sent again after the refusal of another.
            refusal: None where another was refused; its terms are corrected all the same.

        Raises:
            PublishRefused: there is nothing; names the record and has the broker's words.
        """
        if refusal is None:
            return self._reviewed(sent, self._now_ms())
        return self._replaced(sent, refusal, self._now_ms())

    def _reviewed(self, sent: Encoded, now_ms: int) -> Encoded:
        terms, outcome = self._terms[sent.topic], sent.outcome
        timestamp_ms = terms.timestamp(sent.timestamp_ms, now_ms)
        if timestamp_ms != sent.timestamp_ms:
            sent = replace(sent, timestamp_ms=timestamp_ms, expired=False)
        if isinstance(outcome, Classified):
            return self._encoder.checked(sent, outcome, now_ms)
        if isinstance(outcome, DeadLettered) and size_of(sent) > terms.most_bytes:
            return self._encoder.encode(outcome, now_ms=now_ms, now=0.0)
        return sent

    def _replaced(self, refused: Encoded, refusal: Refusal, now_ms: int) -> Encoded:
        outcome = refused.outcome
        if refusal.kind == "timestamp" and abs(now_ms - refused.timestamp_ms) > _JUST_NOW_MS:
            terms = self._terms[refused.topic]
            terms.refused_timestamp(refused.timestamp_ms, now_ms, refusal.words)
            return replace(refused, timestamp_ms=now_ms, expired=False)
        if isinstance(outcome, Classified):
            return self._dead_letter(refused, outcome, refusal, now_ms)
        if isinstance(outcome, DeadLettered) and refusal.kind == "size":
            return self._cut(refused, outcome, refusal, now_ms)
        raise final(refused, refusal)

    def _dead_letter(
        self, refused: Encoded, outcome: Classified, refusal: Refusal, now_ms: int
    ) -> Encoded:
        terms, words = self._terms[refused.topic], refusal.words
        reason = DeadLetterReason.RESULT_REFUSED
        if refusal.kind == "size":
            size, reason = size_of(refused), DeadLetterReason.RESULT_TOO_LARGE
            words = f"the result has {size} bytes: {words}"
            terms.refused_size(size, cut=False)
        elif refused.key is None and "without key" in words:
            terms.keyless = words
        dead = DeadLettered(outcome.item.record, reason, words)
        return self._encoder.encode(dead, now_ms=now_ms, now=0.0)

    def _cut(
        self, refused: Encoded, outcome: DeadLettered, refusal: Refusal, now_ms: int
    ) -> Encoded:
        size = size_of(refused)
        self._terms[refused.topic].refused_size(size, cut=True)
        smaller = self._encoder.encode(outcome, now_ms=now_ms, now=0.0)
        if size_of(smaller) >= size:
            raise final(refused, refusal)
        return smaller


def give_up(sent: Encoded, refusal: Refusal | None) -> Encoded:
    """ReplaceOutcome nothing. Raises PublishRefused for a record that was refused."""
    if refusal is None:
        return sent
    raise final(sent, refusal)


def final(refused: Encoded, refusal: Refusal) -> PublishRefused:
    """A refusal that nothing mends: the record by its place, and the broker's words."""
    topic, partition, offset, _ = refused.ref
    what = f"the dead letter ({refused.reason})" if refused.reason else "the result"
    return PublishRefused(
        f"topic {refused.topic!r} refuses {what} of {topic}[{partition}] offset {offset}, "
        f"{size_of(refused)} bytes: {refusal.words}. Change that topic, or move the group's offset "
        f"of this partition past {offset}"
    )
