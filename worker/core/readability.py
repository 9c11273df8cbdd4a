"""Decides whether the input as a whole is unreadable, or only single records.

A wrong `input.text_path` makes every record unreadable, and a worker that continued would turn the
whole topic into dead letters. So consecutive unreadable records are held back until it is clear
whether the stream is unreadable or only these records. The cases:

* *The whole stream is unreadable.* The first hundred records are held. They exceed the allowed
  share, and the worker stops. It has published none of them, and the group has not moved past the
  first.
* *A producer changes its format.* The window still has readable records, so that more are held
  until their share is too large: up to 901 of the last 1,000.
* *A single record is unreadable.* The next readable record shows that the stream is readable. The
  held records are processed before it, so outcomes keep their order.
* *A record comes alone.* No record follows it, so it is released after `_QUIET` seconds without a
  record. A slow stream of unreadable records is released after `_LONGEST` seconds; their share
  still stops the worker, with less than a hundred dead letters at a start.
* *The worker stops, or a rebalance revokes the partition.* No stage has received the held records:
  they are forgotten, and the partition's next reader polls them again.

Tombstones are not counted: records without a value don't show whether values are readable.

Owns: the window of the last records' readability.
Thread: main; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, deque

from schemas.dead_letter import DeadLetterReason
from worker.core.records import InvalidRecord, WorkItem
from worker.errors import StreamUnreadable

WINDOW = 1_000  # last records that the share is computed of
LEAST = 100  # records before the share is computed
_QUIET = 2.0  # seconds
_LONGEST = 10.0  # seconds


class Readability:
    """Judges the stream by its last records, and holds back unreadable ones.

    Args:
        ratio: share of the window that may be unreadable for one reason; 1 disables the check.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._window: deque[DeadLetterReason | None] = deque()
        self._unreadable: Counter[DeadLetterReason | None] = Counter()
        self._held = 0
        self._held_since = 0.0
        self._quiet_since: float | None = None

    def note(self, entry: WorkItem | InvalidRecord, now: float) -> bool:
        """Count one record, in poll order, and return whether to hold it back.

        If not, the held records before it are released too.

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
        """Note the number of records that a poll returned."""
        if records:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now

    def waited(self, now: float) -> bool:
        """Return whether the held records have waited long enough, and release them if so."""
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
            "or set max_unreadable_ratio to 1 to turn them all into dead letters"
        )
