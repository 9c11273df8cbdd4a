"""Orders the outcomes for a producer, at least once.

Owns: the batches that are not acknowledged.
Thread: publish.
Must not import: inference, runtime.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from worker.core.records import Encoded
from worker.kafka_io.sent_batch import OnCompletion, SentBatch


class SendQueue:
    """Batches that wait for a producer, and batches that were sent and are not acknowledged.

    Results and dead letters go to different topics, so each kind has its own order:

    * Results are sent at once. They wait for a dead letter only until its topic is known to accept
      that kind: the first one with a key, and the first without, must be acknowledged first.
    * A dead letter is sent once every result before it is acknowledged. A result that is refused
      becomes a dead letter, and must not arrive after a later dead letter of its partition.

    Attributes:
        sent: batches that a producer has.
        waiting: the others, in poll order; a part of the first may have been sent.
    """

    def __init__(self, on_completion: OnCompletion) -> None:
        self._on_completion = on_completion
        self.sent: deque[SentBatch] = deque()
        self.waiting: deque[SentBatch] = deque()
        self._last_sequence = 0
        # The kinds of dead letters that were acknowledged: True without a key, False with one.
        self._accepted: set[bool] = set()

    @property
    def batches(self) -> list[SentBatch]:
        """All batches, in poll order."""
        return [*self.sent, *self.waiting]

    def add(self, outcomes: Sequence[Encoded]) -> None:
        """Append outcomes, in batches that may be sent at different times."""
        accepted, start = set(self._accepted), 0
        for index, outcome in enumerate(outcomes):
            keyless = outcome.key is None
            if outcome.reason is not None and keyless not in accepted:
                self._add_by_kind(outcomes[start:index])
                self._append([outcome], barrier=True)
                accepted.add(keyless)
                start = index + 1
        self._add_by_kind(outcomes[start:])

    def _add_by_kind(self, outcomes: Sequence[Encoded]) -> None:
        self._append([outcome for outcome in outcomes if outcome.reason is None])
        self._append([outcome for outcome in outcomes if outcome.reason is not None])

    def _append(self, outcomes: Sequence[Encoded], *, barrier: bool = False) -> None:
        if outcomes:
            self._last_sequence += 1
            batch = SentBatch(outcomes, self._on_completion, self._last_sequence, barrier=barrier)
            self.waiting.append(batch)

    def due(self) -> list[SentBatch]:
        """Return the batches that may be sent now, in order."""
        if not self.waiting:
            return []
        unfinished = [batch for batch in self.batches if not batch.done]
        result = min((b.sequence for b in unfinished if not b.dead_letters), default=math.inf)
        barrier = min((b.sequence for b in unfinished if b.barrier), default=math.inf)
        return [
            batch
            for batch in self.waiting
            if batch.sequence <= barrier and not (batch.dead_letters and batch.sequence > result)
        ]

    def mark_sent(self, batch: SentBatch) -> None:
        """Note that a producer has all of this batch."""
        self.waiting.remove(batch)
        self.sent.append(batch)

    def drop_acknowledged(self) -> None:
        """Drop acknowledged batches, and remember the kinds of dead letters that were accepted."""
        for batch in self.sent:
            if batch.barrier and batch.done:
                self._accepted |= batch.keyless
        self.sent = deque(batch for batch in self.sent if not batch.done)

    def requeue(self) -> None:
        """Let every batch wait again, as its producer is given up."""
        self.waiting.extendleft(reversed(self.sent))
        self.sent = deque()
        for batch in self.waiting:
            batch.detach()  # an abandoned producer fails its records, which is no refusal

    def take_unacknowledged(self) -> list[tuple[Encoded, Exception | None]]:
        """Empty the queue; return each outcome without an acknowledgement, and its error."""
        waiting, self.waiting = self.waiting, deque()
        return [pair for batch in waiting for pair in batch.take_unacknowledged()]
