"""What the demo has sent and what came back for it.

Owns: the match of every input record with its outcomes, and the numbers made from it. Knows the
wire contract alone, as any reader of the topics would. Runs on: the demo's main thread.
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
_SHOWN: Final = 8
_CLEAR_VALENCE: Final = 1.0

Coordinates = tuple[int, int]  # partition and offset in the input topic


@dataclass(frozen=True, slots=True)
class Labelled:
    """One result as the view shows it; `text` is untrusted."""

    text: str
    label: str
    score: float


class Tally:
    """The state of one demo, fed by `Stream`, read by the view and the summary.

    Args:
        records: what is sent.
        unseen: tells the texts that the model was not trained on; None where nobody knows.
    """

    def __init__(
        self,
        records: Sequence[SampleRecord],
        clock: Clock,
        unseen: Callable[[str], bool] | None = None,
    ) -> None:
        self.records = records
        self._unseen = unseen
        self.sent = 0
        self.labels: Counter[str] = Counter()
        self.reasons: Counter[DeadLetterReason] = Counter()
        self.last: deque[Labelled] = deque(maxlen=_SHOWN)
        self.latencies_ms: list[int] = []
        self.seconds = 0.0  # from the first record sent to the last outcome read
        self._clock = clock
        self._started: float | None = None
        self._placed: dict[Coordinates, int] = {}
        self._outcomes: dict[Coordinates, Labelled | DeadLetterReason] = {}
        self._waiting: set[Coordinates] = set()
        self._recent: deque[tuple[float, int]] = deque()

    @property
    def total(self) -> int:
        """Records that the demo sends."""
        return len(self.records)

    @property
    def answered(self) -> int:
        """Records with an outcome."""
        return len(self._outcomes)

    @property
    def waiting(self) -> int:
        """Records that the broker has and that have no outcome yet: the lag."""
        return len(self._waiting)

    @property
    def finished(self) -> bool:
        """Whether every record is with the broker and has an outcome."""
        return len(self._placed) == self.total and not self._waiting

    def note_sent(self) -> None:
        """One more record was handed to the producer."""
        self._started = self._clock.monotonic() if self._started is None else self._started
        self.sent += 1

    def note_acknowledged(self, index: int, partition: int, offset: int) -> None:
        """The broker has put `records[index]` at these coordinates."""
        self._placed[partition, offset] = index
        if (partition, offset) not in self._outcomes:
            self._waiting.add((partition, offset))

    def note_outcome(self, record: RawRecord) -> None:
        """A result or a dead letter was read; repeats are the audit's business."""
        context = dict(record.headers).get(DEAD_LETTER_HEADER)
        outcome: Labelled | DeadLetterReason
        if context is not None:
            letter = DeadLetter.model_validate_json(context)
            source, outcome = letter.source, letter.reason
        else:
            result = Classification.model_validate_json(record.value or b"")
            source = result.source
            place = self._placed.get((source.partition, source.offset))
            text = "" if place is None else self.records[place].text
            outcome = Labelled(text, result.label, result.score)
        here = (source.partition, source.offset)
        if here not in self._outcomes:
            self._count(here, outcome, source.timestamp_ms)

    def rate(self) -> float:
        """Outcomes a second, over the last few seconds."""
        now = self._clock.monotonic()
        self._recent.append((now, self.answered))
        while self._recent[0][0] < now - _RATE_WINDOW_S:
            self._recent.popleft()
        (then, before), (_, after) = self._recent[0], self._recent[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def texts_per_second(self) -> float:
        """Outcomes a second, over the whole run."""
        return self.answered / self.seconds if self.seconds else 0.0

    def latency_ms(self, share: float) -> float | None:
        """The time that this share of the records took at most, from their timestamp to us."""
        if not self.latencies_ms:
            return None
        ordered = sorted(self.latencies_ms)
        return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])

    def agreement(self, *, unseen: bool = False) -> tuple[int, int]:
        """Clear posts on whose side of zero model and raters agree, and all clear posts.

        RecentPosts are clear from a valence of 1 on, either way. None is clear for a model whose labels
        are not POSITIVE and NEGATIVE. `unseen`: only posts that the model was not trained on.
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
        """Records whose outcome is not the expected one, in words, without their text."""
        found = []
        for record, outcome in self._matched():
            got = None if isinstance(outcome, Labelled) else outcome
            if got != record.expected:
                wanted = record.expected or "a label"
                found.append(f"expected {wanted}, got {got or 'a label'}")
        return found

    def _matched(self) -> Iterator[tuple[SampleRecord, Labelled | DeadLetterReason]]:
        for here, index in self._placed.items():
            if here in self._outcomes:
                yield self.records[index], self._outcomes[here]

    def _count(self, here: Coordinates, outcome: Labelled | DeadLetterReason, sent_ms: int) -> None:
        self._outcomes[here] = outcome
        self._waiting.discard(here)
        self.latencies_ms.append(max(0, self._clock.wall_ms() - sent_ms))
        self.seconds = self._clock.monotonic() - (self._started or 0.0)
        if isinstance(outcome, Labelled):
            self.labels[outcome.label] += 1
            self.last.append(outcome)
        else:
            self.reasons[outcome] += 1
