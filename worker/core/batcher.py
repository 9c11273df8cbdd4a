"""When a micro-batch closes, and why. Pure; owned by the poll thread."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from worker.core.pace import Demand
from worker.core.records import InvalidRecord, MicroBatch, Partition, Trigger, WorkItem

Entry = WorkItem | InvalidRecord


class MicroBatcher:
    """Collects entries in poll order and gives them out as contiguous micro-batches.

    A micro-batch is a contiguous take, so that no text is passed over: sorting by length happens
    inside of it, and a long text waits no longer than its mates.

    Args:
        max_records: entries in a batch, at most.
        max_tokens: estimated tokens in a batch, at most; one longer text goes alone.

    Attributes:
        tokens: estimated tokens that wait.
        held: newest entries that no batch gets yet.
    """

    def __init__(self, max_records: int, max_tokens: int) -> None:
        self._max_records = max_records
        self._max_tokens = max_tokens
        self._waiting: deque[tuple[Entry, int, float]] = deque()
        self.tokens = 0
        self.held = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> int:
        """Entries that a batch may get."""
        return len(self._waiting) - self.held

    def add(self, entry: Entry, tokens: int, now: float, *, hold: bool = False) -> None:
        """Append an entry of about that many tokens; unless it is on hold, none before it is."""
        self.held = self.held + 1 if hold else 0
        self._waiting.append((entry, tokens, now))
        self.tokens += tokens

    def release(self) -> None:
        """Let batches have all that waits."""
        self.held = 0

    def due(self, now: float, demand: Demand) -> Trigger | None:
        """Why a batch should close now, or None while it pays to wait.

        One that is full can't grow, and may as well wait where it is next; `pace` tells when it
        pays no more to wait for mates.
        """
        if not self.ready:
            return None
        if self.ready >= self._max_records:
            return "records"
        if self.tokens >= self._max_tokens:
            return "tokens"
        if self.tokens >= demand.most_tokens:
            return "goal"
        return "ready" if now >= demand.at else None

    def take(self, trigger: Trigger, now: float, most_tokens: float = math.inf) -> MicroBatch:
        """The oldest entries that fit one batch; the rest keeps waiting."""
        opened_at = self._waiting[0][2]
        taken: list[Entry] = []
        most = min(self._max_tokens, most_tokens)
        used = 0
        while self.ready and len(taken) < self._max_records:
            entry, tokens, _ = self._waiting[0]
            if taken and used + tokens > most:
                break
            self._waiting.popleft()
            used += tokens
            taken.append(entry)
        self.tokens -= used
        return MicroBatch(tuple(taken), trigger, opened_at, now, used)

    def discard(self, partitions: Iterable[Partition] | None = None) -> list[Entry]:
        """Take out the waiting entries of these partitions (default: all) and return them."""
        gone = None if partitions is None else set(partitions)
        kept: deque[tuple[Entry, int, float]] = deque()
        dropped: list[Entry] = []
        first_held = self.ready
        for place, waiting in enumerate(self._waiting):
            topic, partition, _, _ = waiting[0].record.ref
            if gone is None or Partition(topic, partition) in gone:
                dropped.append(waiting[0])
                self.tokens -= waiting[1]
                self.held -= place >= first_held
            else:
                kept.append(waiting)
        self._waiting = kept
        return dropped
