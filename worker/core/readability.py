"""Judges whether the input can be read at all. Pure; the poll thread owns it.

A wrong `input.text_path` makes every record unreadable, and a worker that went on would drain the
topic into the dead letters. So unreadable records that come in a row are held back until it is
clear if the fault is the stream's or their own. Walked through:

* *All of a stream is unreadable.* The first hundred are held; they are too many, and the worker
  stops. It has published none of them, and the group has not moved past the first.
* *A producer changes under way.* The window still has the good records of before, so that more are
  held until their share is too large: up to 901 of the last 1,000.
* *One record among others is unreadable.* The next one that can be read shows that the stream can.
  The records that are held go on ahead of it: outcomes keep their order.
* *One record comes alone.* Nothing follows it, so it goes on after `_QUIET` seconds without a
  record. A trickle of unreadable ones goes on after `_LONGEST`; the share still stops the worker,
  with less than a hundred dead letters at a start.
* *The worker stops, or a rebalance takes the partition.* Records on hold were never handed on: they
  are forgotten, and the partition's next reader polls them again.

Tombstones count for nothing: records without a value say nothing about how values are read.
"""

from __future__ import annotations

from collections import Counter, deque

from schemas.dead_letter import DeadLetterReason
from worker.core.records import InvalidRecord, WorkItem
from worker.errors import StreamUnreadable

WINDOW = 1_000  # records whose share counts
LEAST = 100  # records that a share is told of
_QUIET = 2.0  # seconds
_LONGEST = 10.0  # seconds


class Readability:
    """Judges the stream by its last records, and says which of them to hold back.

    Args:
        ratio: share of the window that may be unreadable for one reason; 1 turns all of it off.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._window: deque[DeadLetterReason | None] = deque()
        self._unreadable: Counter[DeadLetterReason | None] = Counter()
        self._held = 0
        self._held_since = 0.0
        self._quiet_since: float | None = None

    def note(self, entry: WorkItem | InvalidRecord, now: float) -> bool:
        """Count one record, in poll order, and say whether to hold it back.

        If not, the records before it go on too.

        Args:
            entry: the record.
            now: seconds of the monotonic clock.

        Raises:
            StreamUnreadable: too many of the last records are unreadable for one reason.
        """
        if self._ratio >= 1:
            return False
        if not isinstance(entry, InvalidRecord):
            self._remember(None)
            self._held = 0
        elif entry.reason is not DeadLetterReason.NULL_VALUE:
            self._remember(entry.reason)
            self._hold(entry, now)
        return self._held > 0

    def _hold(self, entry: InvalidRecord, now: float) -> None:
        self._held_since = self._held_since if self._held else now
        self._held += 1
        number, of = self._unreadable[entry.reason], len(self._window)
        if of >= LEAST and number > self._ratio * of:
            raise self._stop(entry, number, of)

    def polled(self, records: int, now: float) -> None:
        """Note that a poll brought so many records."""
        if records:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now

    def waited(self, now: float) -> bool:
        """True once the records on hold have waited for long enough."""
        quiet = self._quiet_since is not None and now - self._quiet_since >= _QUIET
        if quiet or now - self._held_since >= _LONGEST:
            self._held = 0
        return self._held == 0

    def _remember(self, reason: DeadLetterReason | None) -> None:
        self._window.append(reason)
        self._unreadable[reason] += 1
        if len(self._window) > WINDOW:
            self._unreadable[self._window.popleft()] -= 1

    def _stop(self, entry: InvalidRecord, number: int, of: int) -> StreamUnreadable:
        topic, partition, offset, _ = entry.record.ref
        return StreamUnreadable(
            f"{number} of the last {of} records can't be read for one reason, {entry.reason} "
            f"({topic}[{partition}] offset {offset}: {entry.message}); max_unreadable_ratio is "
            f"{self._ratio:g}. The last {self._held} of them were neither published nor committed. "
            "Compare input.format and input.text_path with the records (`streamlabel check` does), "
            "or set max_unreadable_ratio to 1 to make dead letters of them all"
        )
