"""When a micro-batch closes, and why. Pure; owned by the poll thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from worker.core.records import InvalidRecord, MicroBatch, Partition, Trigger, WorkItem

Entry = WorkItem | InvalidRecord


class MicroBatcher:
    """Collects entries in poll order and gives them out as contiguous micro-batches.

    Args:
        max_records: entries in a batch, at most.
        max_tokens: estimated tokens in a batch, at most; one longer text goes alone.
        max_delay: seconds that the first entry waits for mates.
    """

    def __init__(self, max_records: int, max_tokens: int, max_delay: float) -> None:
        self._max_records = max_records
        self._max_tokens = max_tokens
        self._max_delay = max_delay
        self._waiting: deque[tuple[Entry, int, float]] = deque()
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entry: Entry, tokens: int, now: float) -> None:
        """Append an entry of about that many tokens."""
        self._waiting.append((entry, tokens, now))
        self._tokens += tokens

    @property
    def deadline(self) -> float | None:
        """When the first entry has waited long enough; None while nothing waits."""
        return self._waiting[0][2] + self._max_delay if self._waiting else None

    def due(self, now: float, *, drain: bool = False) -> Trigger | None:
        """Why a batch should close now, or None while it pays to wait."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._max_records:
            return "records"
        if self._tokens >= self._max_tokens:
            return "tokens"
        if drain:
            return "drain"
        return "delay" if now >= self._waiting[0][2] + self._max_delay else None

    def take(self, trigger: Trigger, now: float) -> MicroBatch:
        """The oldest entries that fit one batch; the rest keeps waiting."""
        opened_at = self._waiting[0][2]
        taken: list[Entry] = []
        room = self._max_tokens
        while self._waiting and len(taken) < self._max_records:
            entry, tokens, _ = self._waiting[0]
            if taken and tokens > room:
                break
            self._waiting.popleft()
            self._tokens -= tokens
            room -= tokens
            taken.append(entry)
        return MicroBatch(tuple(taken), trigger, opened_at, now)

    def discard(self, partitions: Iterable[Partition] | None = None) -> list[Entry]:
        """Take out the waiting entries of these partitions (default: all) and return them."""
        gone = None if partitions is None else set(partitions)
        kept: deque[tuple[Entry, int, float]] = deque()
        dropped: list[Entry] = []
        for waiting in self._waiting:
            topic, partition, _, _ = waiting[0].record.ref
            if gone is None or Partition(topic, partition) in gone:
                dropped.append(waiting[0])
                self._tokens -= waiting[1]
            else:
                kept.append(waiting)
        self._waiting = kept
        return dropped
