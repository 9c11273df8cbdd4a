"""Decides which dead letters are replayed, and makes records of them again.

Owns: the reasons for which a dead letter is not replayed.
Thread: poll, of `streamlabel dead-letters replay`; pure.
Must not import: anything but core and settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from worker.core.coordinates import GROUP_HEADER
from worker.core.dead_letters import OWN_HEADERS, Letter, LetterContext, LetterFilters
from worker.core.encoder import record_size
from worker.core.records import RawRecord, RecordRef
from worker.core.replay import MOST_ATTEMPTS, Replay
from worker.core.replay_outcomes import Source
from worker.core.settled_letters import SettledLetters
from worker.core.topic_limits import TopicLimits

# Why a dead letter is not replayed, and what to do about it.
REFUSALS: Final[Mapping[str, str]] = {
    "unreadable": "no document of streamlabel, so another program wrote it",
    "other_input": "of a topic that is no input here: name it with --input-topics, or use --to",
    "backfill": "of a backfill, and workers would label the copy: --label",
    "no_topic": "the topic does not exist any more: use --to",
    "null_value": "no value, which nothing can label: only --to another topic takes them",
    "cut": "only the beginning of the value was kept: --include-cut",
    "unread": "larger than this replay reads whole: raise --max-inflight-bytes",
    "incomplete": "key or headers were dropped: --include-cut",
    "attempts": "replayed as often as --max-attempts allows",
    "labelled": "a replay has labelled the record already",
    "copy": "of a copy that a topic refused: the record itself has an outcome",
    "superseded": "another dead letter of the record is replayed instead",
    "expired": "older than the topic keeps records, which would delete it at once: --label",
    "timestamp": "the topic refuses the record's timestamp: --label",
    "too_large": "larger than the topic accepts: raise its max.message.bytes, or use --label",
}


@dataclass(frozen=True, slots=True)
class ReplayRules:
    """The choice of dead letters, and their way.

    Attributes:
        filters: choose dead letters.
        is_input: whether a topic is an input of the worker, which will label its records.
        to: topic of the copies; None: that of the record.
        limits: of each topic that takes copies; None if records are labelled at once.
        include_cut: whether cut and incomplete ones are replayed.
        max_attempts: replays of one record.
        settled: which ones have a later one, or a result; None: nothing is known of that.
    """

    filters: LetterFilters
    is_input: Callable[[str], bool]
    to: str | None = None
    limits: Mapping[str, TopicLimits] | None = None
    include_cut: bool = False
    max_attempts: int = 3
    settled: SettledLetters | None = None

    def refusal(self, letter: Letter, now_ms: int) -> str | None:
        """Return why a dead letter is not replayed, a key of `REFUSALS`, or None.

        Args:
            letter: one that the filters choose.
            now_ms: wall clock, ms.
        """
        context, source = letter.context, letter.source
        if letter.unread:
            return "unread"
        if context is None or source is None:
            return "unreadable"
        reason = "copy" if letter.of_copy else self._unfit(letter, context)
        if reason is None and self.limits is not None:
            reason = self._refused_copy(letter, context, self.limits, now_ms)
        return reason

    def _unfit(self, letter: Letter, context: LetterContext) -> str | None:
        if self.settled and (state := self.settled.state(letter)) != "open":
            return state
        if self.to is None and not self.is_input(context.source.topic):
            return "other_input"
        if context.value_state == "null" and self._into_input:
            return "null_value"
        if context.value_state == "cut" and not self.include_cut:
            return "cut"
        if not context.complete and not self.include_cut:
            return "incomplete"
        return "attempts" if self._attempts(letter) >= self.max_attempts else None

    def _attempts(self, letter: Letter) -> int:
        """Return the number of replays so far: a later dead letter may keep less than this one."""
        return max(letter.attempt, self.settled.attempts(letter) if self.settled else 0)

    @property
    def _into_input(self) -> bool:
        return self.to is None or self.is_input(self.to)

    def _refused_copy(
        self, letter: Letter, context: LetterContext, known: Mapping[str, TopicLimits], now_ms: int
    ) -> str | None:
        if letter.group and self._into_input:
            return "backfill"
        limits = known.get(self.topic_for(context))
        if limits is None:
            return "no_topic"
        timestamp_ms = context.source.timestamp_ms
        if limits.expired(timestamp_ms, now_ms):
            return "expired"
        if limits.timestamp(timestamp_ms, now_ms) != timestamp_ms:
            return "timestamp"
        size = record_size(
            letter.key, letter.value, (*letter.headers, self.replay_of(letter).header)
        )
        return "too_large" if size > limits.most_bytes else None

    def topic_for(self, context: LetterContext) -> str:
        """Return the topic that takes the copy."""
        return self.to or context.source.topic

    def replay_of(self, letter: Letter) -> Replay:
        """Return the next replay of a dead letter.

        The first record counts, if it is one of an input here. Otherwise this worker knows only the
        copy, as its own input.
        """
        before, source = letter.replay, letter.source
        known = before is not None and self.is_input(before.source[0])
        first = before.source if before is not None and known else source
        if first is None:
            raise ValueError("a dead letter without a document has no replay")
        return Replay(first, min(self._attempts(letter) + 1, MOST_ATTEMPTS))

    def restore(self, letter: Letter, ref: RecordRef, polled_at: float) -> RawRecord:
        """Return the record that a dead letter was made of.

        Its origin is where its outcome belongs: the record itself for a copy, and the first record
        for one that is labelled at once.

        Args:
            letter: one without a refusal.
            ref: its coordinates and epoch.
            polled_at: seconds of the monotonic clock.
        """
        context, source = letter.context, letter.source
        if context is None or source is None:
            raise ValueError("a dead letter without a document is no record")
        replay = self.replay_of(letter)
        origin: Source = source if self.limits is not None else replay.source
        headers = [header for header in letter.headers if header[0] not in OWN_HEADERS]
        if letter.group and self.limits is None:
            headers.append((GROUP_HEADER, letter.group))  # the outcome is of the same group
        return RawRecord(
            ref,
            context.source.timestamp_ms,
            letter.key,
            None if context.value_state == "null" else letter.value,
            (*headers, replay.header),
            polled_at,
            origin=RecordRef(*origin, ref.epoch),
        )


@dataclass(slots=True)
class ReplayCounts:
    """Numbers of the dead letters that were read.

    Attributes:
        read: of the dead-letter topic.
        filtered: not chosen by the filters.
        refused: number by reason.
        taken: on their way; they are done once the broker has acknowledged them.
        reasons: of those that were taken, their number by reason.
        targets: of those that were taken, their number by topic.
    """

    read: int = 0
    filtered: int = 0
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)


class ReplaySelection:
    """Applies the rules to one dead letter after the other, and counts.

    A dead letter that is polled again, as after a rebalance, is not counted again.

    Args:
        rules: decide.
        limit: dead letters to replay; None: all.
    """

    def __init__(self, rules: ReplayRules, limit: int | None = None) -> None:
        self.rules, self._limit = rules, limit
        self.counts = ReplayCounts()
        self._highest: dict[int, int] = {}  # offset, by partition

    @property
    def full(self) -> bool:
        """True if as many were taken as wanted."""
        return self._limit is not None and self.counts.taken >= self._limit

    def is_beyond(self, partition: int, offset: int) -> bool:
        """Return whether a dead letter comes after as many as wanted."""
        return self.full and offset > self._highest.get(partition, -1)

    def takes(self, letter: Letter, now_ms: int) -> bool:
        """Count a dead letter, and return whether it is to be replayed."""
        counts = self.counts
        if letter.offset <= self._highest.get(letter.partition, -1):
            counts = ReplayCounts()
        else:
            self._highest[letter.partition] = letter.offset
        counts.read += 1
        if not self.rules.filters.accept(letter):
            counts.filtered += 1
            return False
        reason, context = self.rules.refusal(letter, now_ms), letter.context
        if reason or context is None:  # the second is a refusal too
            counts.refused[reason or "unreadable"] += 1
            return False
        counts.taken += 1
        counts.reasons[context.reason] += 1
        counts.targets[self.rules.topic_for(context)] += 1
        return True
