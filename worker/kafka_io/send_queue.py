"""The order in which outcomes are handed to a producer, at least once.

The publish thread owns a `SendQueue`. Imports no inference and no runtime.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from worker.core.records import Encoded
from worker.kafka_io.sent_batch import OnCompletion, SentBatch


class SendQueue:
    """Batches that wait for a producer, and batches that it has, not yet acknowledged.

    Results and dead letters go to topics of their own, so each kind has an order of its own:

    * Results go at once. They wait for a dead letter only while it is not known whether the topic
      takes any such: the first with a key, and the first without, must be acknowledged first.
    * A dead letter goes when every result before it is acknowledged. A result that is refused
      becomes a dead letter, and must not come after one that follows it in its partition.

    Attributes:
        sent: batches that a producer has.
        waiting: the others, in poll order; a part of the first may have been handed over.
    """

    def __init__(self, on_completion: OnCompletion) -> None:
        self._on_completion = on_completion
        self.sent: deque[SentBatch] = deque()
        self.waiting: deque[SentBatch] = deque()
        self._places = 0
        self._proven: set[bool] = set()  # which dead letters were taken: without a key, with one

    @property
    def batches(self) -> list[SentBatch]:
        """All of it."""
        return [*self.sent, *self.waiting]

    def add(self, outcomes: Sequence[Encoded]) -> None:
        """Append outcomes, in batches that may go each at its own time."""
        proven, done = set(self._proven), 0
        for place, outcome in enumerate(outcomes):
            keyless = outcome.key is None
            if outcome.reason is not None and keyless not in proven:
                self._add_apart(outcomes[done:place])
                self._append([outcome], proof=True)
                proven.add(keyless)
                done = place + 1
        self._add_apart(outcomes[done:])

    def _add_apart(self, outcomes: Sequence[Encoded]) -> None:
        self._append([outcome for outcome in outcomes if outcome.reason is None])
        self._append([outcome for outcome in outcomes if outcome.reason is not None])

    def _append(self, outcomes: Sequence[Encoded], *, proof: bool = False) -> None:
        if outcomes:
            self._places += 1
            self.waiting.append(SentBatch(outcomes, self._on_completion, self._places, proof=proof))

    def due(self) -> list[SentBatch]:
        """Batches that may be handed over now, in order."""
        undone = [batch for batch in self.batches if not batch.done]
        result = min((batch.place for batch in undone if not batch.letters), default=math.inf)
        proof = min((batch.place for batch in undone if batch.proof), default=math.inf)
        return [
            batch
            for batch in self.waiting
            if batch.place <= proof and not (batch.letters and batch.place > result)
        ]

    def handed_over(self, batch: SentBatch) -> None:
        """A producer has all of this batch."""
        self.waiting.remove(batch)
        self.sent.append(batch)

    def let_go(self) -> None:
        """Forget what is acknowledged, but for what it proves."""
        for batch in self.sent:
            if batch.proof and batch.done:
                self._proven |= batch.keyless
        self.sent = deque(batch for batch in self.sent if not batch.done)

    def recall(self) -> None:
        """Have everything wait again: its producer is given up."""
        self.waiting.extendleft(reversed(self.sent))
        self.sent = deque()
        for batch in self.waiting:
            batch.leave()  # what the old one refuses when it is abandoned is no refusal

    def take_back(self) -> list[tuple[Encoded, Exception | None]]:
        """Empty the line; each outcome that is not acknowledged, and the producer's error."""
        waiting, self.waiting = self.waiting, deque()
        return [pair for batch in waiting for pair in batch.take_back()]
