"""Counts the demo's records: which were sent, and the outcome of each.

It knows the wire contract only, as any reader of the topics does.

Owns: the match of every input record with its outcome, and the figures computed from it.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.classification import Classification
from schemas.dead_letter import DeadLetter, DeadLetterReason
from worker.clock import Clock
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.records import RawRecord
from worker.demo.sample import SampleRecord

_RATE_WINDOW_S: Final = 3.0
_RECENT_RESULTS: Final = 8
_CLEAR_VALENCE: Final = 1.0

Coordinates = tuple[int, int]  # partition and offset in the input topic


@dataclass(frozen=True, slots=True)
class Labelled:
    """One result for the screen; `text` is untrusted."""

    text: str
    label: str
    score: float


class Tally:
    """The counts of one demo: `SampleFeed` updates them, view and summary read them.

    Args:
        records: the records to send.
        clock: for rates, times and latencies.
        unseen: returns whether the model was not trained on a text; None if that is unknown.
        read: returns the result in a value; as JSON by default.
    """

    def __init__(
        self,
        records: Sequence[SampleRecord],
        clock: Clock,
        unseen: Callable[[str], bool] | None = None,
        read: Callable[[bytes], Classification] = Classification.model_validate_json,
    ) -> None:
        self.records = records
        self._read = read
        self._unseen = unseen
        self.sent = 0
        self.labels: Counter[str] = Counter()
        self.reasons: Counter[DeadLetterReason] = Counter()
        self.last: deque[Labelled] = deque(maxlen=_RECENT_RESULTS)
        self.latencies_ms: list[int] = []
        self.seconds = 0.0  # from the first record sent to the last outcome read
        self._clock = clock
        self._started: float | None = None
        self._acknowledged: dict[Coordinates, int] = {}
        self._outcomes: dict[Coordinates, Labelled | DeadLetterReason] = {}
        self._waiting: set[Coordinates] = set()
        self._recent: deque[tuple[float, int]] = deque()

    @property
    def total(self) -> int:
        """Records that the demo sends."""
        return len(self.records)

    @property
    def answered(self) -> int:
        """Records that have an outcome."""
        return len(self._outcomes)

    @property
    def waiting(self) -> int:
        """Records that the broker has acknowledged and that have no outcome yet: the lag."""
        return len(self._waiting)

    @property
    def finished(self) -> bool:
        """True once the broker has every record and each has an outcome."""
        return len(self._acknowledged) == self.total and not self._waiting

    def note_sent(self) -> None:
        """Count a record that is handed to the producer."""
        self._started = self._clock.monotonic() if self._started is None else self._started
        self.sent += 1

    def note_acknowledged(self, index: int, partition: int, offset: int) -> None:
        """Note the coordinates that the broker gave to `records[index]`."""
        self._acknowledged[partition, offset] = index
        if (partition, offset) not in self._outcomes:
            self._waiting.add((partition, offset))

    def note_outcome(self, record: RawRecord) -> None:
        """Note a result or a dead letter; duplicates are ignored, the audit counts them."""
        context = dict(record.headers).get(DEAD_LETTER_HEADER)
        outcome: Labelled | DeadLetterReason
        if context is not None:
            dead_letter = DeadLetter.model_validate_json(context)
            source, outcome = dead_letter.source, dead_letter.reason
        else:
            result = self._read(record.value or b"")
            source = result.source
            index = self._acknowledged.get((source.partition, source.offset))
            text = "" if index is None else self.records[index].text
            outcome = Labelled(text, result.label, result.score)
        coordinates = (source.partition, source.offset)
        if coordinates not in self._outcomes:
            self._count(coordinates, outcome, source.timestamp_ms)

    def rate(self) -> float:
        """Return outcomes a second, over the last few seconds."""
        now = self._clock.monotonic()
        self._recent.append((now, self.answered))
        while self._recent[0][0] < now - _RATE_WINDOW_S:
            self._recent.popleft()
        (then, before), (_, after) = self._recent[0], self._recent[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def texts_per_second(self) -> float:
        """Return outcomes a second, over the whole run."""
        return self.answered / self.seconds if self.seconds else 0.0

    def elapsed_s(self) -> float:
        """Return the seconds since the first record was sent, or of the whole run at its end."""
        if self.finished or self._started is None:
            return self.seconds
        return self._clock.monotonic() - self._started

    def remaining_s(self) -> float | None:
        """Return the seconds left at the mean speed so far, or None before the first outcome."""
        if not self.answered:
            return None
        return self.elapsed_s() * (self.total - self.answered) / self.answered

    def latency_ms(self, share: float) -> float | None:
        """Return a percentile of the time from a record's timestamp until its outcome was read."""
        if not self.latencies_ms:
            return None
        ordered = sorted(self.latencies_ms)
        return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])

    def agreement(self, *, unseen: bool = False) -> tuple[int, int]:
        """Return the number of clear posts that model and raters agree on, and of all clear posts.

        A post is clear if its valence is at least 1 or at most -1. A model with labels other than
        POSITIVE and NEGATIVE has no clear posts.

        Args:
            unseen: count only posts that the model was not trained on.
        """
        sides = {"POSITIVE": 1.0, "NEGATIVE": -1.0}
        votes = [
            sides[outcome.label.upper()] * record.valence > 0
            for record, outcome in self._matched()
            if isinstance(outcome, Labelled) and outcome.label.upper() in sides
            if record.valence is not None and abs(record.valence) >= _CLEAR_VALENCE
            if not unseen or (self._unseen is not None and self._unseen(record.text))
        ]
        return sum(votes), len(votes)

    def surprises(self) -> list[str]:
        """Describe every record with an unexpected outcome, without its text."""
        surprises = []
        for record, outcome in self._matched():
            reason = None if isinstance(outcome, Labelled) else outcome
            if reason != record.expected:
                expected = record.expected or "a label"
                surprises.append(f"expected {expected}, got {reason or 'a label'}")
        return surprises

    def _matched(self) -> Iterator[tuple[SampleRecord, Labelled | DeadLetterReason]]:
        for coordinates, index in self._acknowledged.items():
            if coordinates in self._outcomes:
                yield self.records[index], self._outcomes[coordinates]

    def _count(
        self, coordinates: Coordinates, outcome: Labelled | DeadLetterReason, sent_ms: int
    ) -> None:
        self._outcomes[coordinates] = outcome
        self._waiting.discard(coordinates)
        self.latencies_ms.append(max(0, self._clock.wall_ms() - sent_ms))
        self.seconds = self._clock.monotonic() - (self._started or 0.0)
        if isinstance(outcome, Labelled):
            self.labels[outcome.label] += 1
            self.last.append(outcome)
        else:
            self.reasons[outcome] += 1
