"""Collects records into micro-batches, and decides when a micro-batch closes.

Owns: the entries that wait for a micro-batch.
Thread: main; pure.
Must not import: anything but core.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from worker.core.pace import Demand
from worker.core.records import InvalidRecord, MicroBatch, Partition, Trigger, WorkItem

Entry = WorkItem | InvalidRecord


class MicroBatcher:
    """Collects entries in poll order and returns them in micro-batches.

    A micro-batch has consecutive entries, so that no text is overtaken: texts are sorted by length
    only within a micro-batch, and a long text waits no longer than the others.

    Args:
        max_records: most entries in a batch.
        max_tokens: most estimated tokens in a batch; a longer text has its own batch.

    Attributes:
        tokens: estimated tokens that wait.
        held: number of newest entries on hold, which are in no batch yet.
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
        """Number of entries that a batch may have."""
        return len(self._waiting) - self.held

    def add(self, entry: Entry, tokens: int, now: float, *, hold: bool = False) -> None:
        """Append an entry of about `tokens` tokens; an entry without `hold` releases all others."""
        self.held = self.held + 1 if hold else 0
        self._waiting.append((entry, tokens, now))
        self.tokens += tokens

    def release(self) -> None:
        """Release all entries on hold."""
        self.held = 0

    def due(self, now: float, demand: Demand) -> Trigger | None:
        """Return why a batch should close now, or None to wait for more entries.

        A full batch can't grow, so it closes at once. Otherwise `demand` decides.
        """
        if not self.ready:
            return None
        if self.ready >= self._max_records:
            return "records"
        if self.tokens >= self._max_tokens:
            return "tokens"
        if self.tokens >= demand.most_tokens:
            return demand.limit
        return "ready" if now >= demand.at else None

    def take(self, trigger: Trigger, now: float, most_tokens: float = math.inf) -> MicroBatch:
        """Return a batch of the oldest entries that fit; the others keep waiting."""
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
        """Remove the waiting entries of these partitions (default: all), and return them."""
        discarded = None if partitions is None else set(partitions)
        kept: deque[tuple[Entry, int, float]] = deque()
        removed: list[Entry] = []
        first_held = self.ready
        for index, waiting in enumerate(self._waiting):
            topic, partition, _, _ = waiting[0].record.ref
            if discarded is None or Partition(topic, partition) in discarded:
                removed.append(waiting[0])
                self.tokens -= waiting[1]
                self.held -= index >= first_held
            else:
                kept.append(waiting)
        self._waiting = kept
        return removed
