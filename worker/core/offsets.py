"""Tracks the offsets that may be committed, and the work in flight.

All promises of delivery rest on two rules:

* A partition's committable offset never passes a record without an acknowledged outcome.
* A partition that is revoked and assigned again starts a new epoch; completions of the old epoch
  are ignored. Without epochs: offset 7 is in flight, the partition moves to another worker and
  returns, 7 is polled again (epoch 2), and the late acknowledgement of the first 7 would resolve
  the second, whose outcome has not been acknowledged.

Offsets need not be contiguous: compaction, transaction markers and aborted records leave gaps. A
gap at the end of a partition has no record after it, whose acknowledgement would move the offset
past the gap. So the source's position counts as progress too, if all records before it are
acknowledged; otherwise the group would never reach the end.

A record is *in flight* until its outcome is acknowledged. It is *held* until its offset may be
committed as well: a record that is acknowledged before an older one still takes memory, and is
repeated after a crash. So the limit of the work in flight applies to the records that are held.

Owns: epoch, records and positions of each assigned partition.
Thread: main; revoke, while main is parked inside a rebalance. Pure.
Must not import: anything but core.records and core.refusals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from worker.core.records import Partition, RawRecord, RecordRef
from worker.core.refusals import TopicVerdict


@dataclass(slots=True)
class _Tracked:
    ref: RecordRef
    size: int
    polled_at: float
    number: int  # among all tracked records, in poll order
    done: bool = False
    verdicts: Sequence[TopicVerdict] = ()  # see `resolve`


@dataclass(slots=True)
class _Log:
    """One assigned partition."""

    epoch: int
    queue: deque[_Tracked] = field(default_factory=deque)
    by_offset: dict[int, _Tracked] = field(default_factory=dict)
    position: int | None = None  # after the acknowledged records
    reached: int | None = None  # the source's position: all records below it are tracked
    begins: int | None = None  # start of the group, if it had no committed offset
    first: int | None = None  # the first offset that was tracked
    committed: int | None = None

    @property
    def passed(self) -> int | None:
        """Next offset to read, with all records before it acknowledged."""
        reached = None if self.queue else self.reached
        known = [offset for offset in (self.position, reached) if offset is not None]
        return max(known, default=None)


class OffsetTracker:
    """Tracks every record from poll to acknowledgement.

    Attributes:
        records, bytes: in flight.
        held_records, held_bytes: in flight, or acknowledged before an older record in flight.
        commits: number of commits so far.
        offsets_committed: offsets that these commits passed, gaps included.
    """

    def __init__(self) -> None:
        self._logs: dict[Partition, _Log] = {}
        self._tracked = 0
        self._verdicts: list[Sequence[TopicVerdict]] = []
        self.commits = self.offsets_committed = 0
        self.records = self.held_records = 0
        self.bytes = self.held_bytes = 0

    def assign(self, partition: Partition, epoch: int) -> None:
        """Start to track a partition; completions of an older epoch are ignored from now on."""
        self.revoke(partition)
        self._logs[partition] = _Log(epoch)

    def revoke(self, partition: Partition) -> None:
        """Drop a partition and its records in flight."""
        if log := self._logs.pop(partition, None):
            for tracked in log.queue:
                self._release(tracked)
            for tracked in log.by_offset.values():
                self._complete(tracked)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The tracked partitions."""
        return tuple(self._logs)

    def track(self, record: RawRecord) -> None:
        """Track a polled record, before any other step.

        Raises:
            ValueError: the offset is not above the partition's last one.
        """
        topic, partition, offset, epoch = record.ref
        log = self._logs.get(Partition(topic, partition))
        if log is None or log.epoch != epoch:
            return
        if log.queue and log.queue[-1].ref.offset >= offset:
            raise ValueError(f"{record.ref} polled after offset {log.queue[-1].ref.offset}")
        tracked = _Tracked(record.ref, record.size, record.polled_at, self._tracked)
        log.first = offset if log.first is None else log.first
        log.queue.append(tracked)
        log.by_offset[offset] = tracked
        self._tracked += 1
        self.records += 1
        self.held_records += 1
        self.bytes += tracked.size
        self.held_bytes += tracked.size

    def tracks(self, ref: RecordRef) -> bool:
        """Return whether the record's partition is tracked under the record's epoch."""
        return self._current(ref) is not None

    def resolve(self, ref: RecordRef, verdicts: Sequence[TopicVerdict] = ()) -> bool:
        """Note an acknowledged outcome, and return False if the record's epoch is over.

        Args:
            ref: the record.
            verdicts: of the topics of its outcome and copies, for `verdicts`.
        """
        log = self._current(ref)
        tracked = log.by_offset.pop(ref.offset, None) if log else None
        if log is None or tracked is None:
            return False
        tracked.done, tracked.verdicts = True, verdicts
        self._complete(tracked)
        while log.queue and log.queue[0].done:
            first = log.queue.popleft()
            self._release(first)
            log.position = first.ref.offset + 1
            if first.verdicts:
                self._verdicts.append(first.verdicts)
        return True

    def verdicts(self) -> list[Sequence[TopicVerdict]]:
        """Return the verdicts on each record since the last call, in its partition's order.

        Acknowledgements arrive in another order, as dead letters wait for the results before them.
        """
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def forget(self, refs: Iterable[RecordRef]) -> None:
        """Stop tracking records that no stage has received; they will be polled again.

        They are the newest of their partitions (the batcher keeps poll order), so no record after
        them can have moved the position past them.
        """
        changed: dict[Partition, _Log] = {}
        for ref in refs:
            log = self._current(ref)
            tracked = log.by_offset.pop(ref.offset, None) if log else None
            if log is not None and tracked is not None:
                log.reached = None  # it is beyond these records
                changed[Partition(ref.topic, ref.partition)] = log
                self._complete(tracked)
                self._release(tracked)
        for log in changed.values():  # once each: there may be thousands of records
            log.queue = deque(t for t in log.queue if t.done or t.ref.offset in log.by_offset)

    def pending(self, partitions: Iterable[Partition]) -> int:
        """Return the number of records of these partitions without an acknowledged outcome."""
        return sum(len(self._logs[p].by_offset) for p in partitions if p in self._logs)

    def reach(self, positions: Mapping[Partition, int]) -> None:
        """Note the source's positions, after all polled records are tracked."""
        for partition, position in positions.items():
            if log := self._logs.get(partition):
                log.reached = position

    def begin(self, positions: Mapping[Partition, int]) -> list[Partition]:
        """Note where the group begins in partitions without a committed offset.

        Only the first position of an epoch counts. Its commit may be under way, and a later one
        would skip the records between.

        Returns:
            The partitions whose position was noted now.
        """
        fresh = [p for p in positions if p in self._logs and self._logs[p].begins is None]
        for partition in fresh:
            self._logs[partition].begins = positions[partition]
        return fresh

    def begun(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the positions that `begin` noted for these partitions."""
        begins = {p: self._logs[p].begins for p in partitions if p in self._logs}
        return {partition: offset for partition, offset in begins.items() if offset is not None}

    def acknowledged(self) -> dict[Partition, int]:
        """Return the offsets to commit by acknowledgements alone, without the source's position."""
        return self._uncommitted({p: log.position for p, log in self._logs.items()})

    def committable(self) -> dict[Partition, int]:
        """Return the offsets to commit: the next offset to read, if it is not committed yet."""
        return self._uncommitted({p: log.passed for p, log in self._logs.items()})

    def _uncommitted(self, offsets: Mapping[Partition, int | None]) -> dict[Partition, int]:
        uncommitted: dict[Partition, int] = {}
        for partition, offset in offsets.items():
            committed = self._logs[partition].committed
            if offset is not None and (committed is None or offset > committed):
                uncommitted[partition] = offset
        return uncommitted

    def refs(self, positions: Mapping[Partition, int]) -> tuple[RecordRef, ...]:
        """Return positions with the epochs of their partitions."""
        return tuple(
            RecordRef(*partition, offset, self._logs[partition].epoch)
            for partition, offset in positions.items()
            if partition in self._logs
        )

    def mark_committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note that the broker has these offsets."""
        self.commits += 1
        for partition, offset in offsets.items():
            if log := self._logs.get(partition):
                before = log.first if log.committed is None else log.committed
                if before is not None:
                    self.offsets_committed += max(0, offset - before)
                log.committed = offset if log.committed is None else max(offset, log.committed)

    def mark_kept(self, refs: Iterable[RecordRef]) -> None:
        """Note that the broker has these positions; positions of an older epoch are ignored."""
        self.mark_committed(
            {Partition(r.topic, r.partition): r.offset for r in refs if self._current(r)}
        )

    def committed(self, partition: Partition) -> int | None:
        """Return the offset that this worker committed last, None before the first commit."""
        log = self._logs.get(partition)
        return log.committed if log else None

    @property
    def resolved(self) -> int:
        """Number of records before the oldest one in flight; never decreases.

        An acknowledgement after that one is not progress: its offset can't be committed.
        """
        oldest = self._oldest()
        return oldest.number if oldest else self._tracked

    def oldest(self) -> tuple[RecordRef, float] | None:
        """Return the oldest record in flight and its poll time, seconds of the monotonic clock."""
        oldest = self._oldest()
        return (oldest.ref, oldest.polled_at) if oldest else None

    def _oldest(self) -> _Tracked | None:
        heads = (log.queue[0] for log in self._logs.values() if log.queue)
        return min(heads, key=attrgetter("number"), default=None)

    def _current(self, ref: RecordRef) -> _Log | None:
        log = self._logs.get(Partition(ref.topic, ref.partition))
        return log if log is not None and log.epoch == ref.epoch else None

    def _complete(self, tracked: _Tracked) -> None:
        """Count a record as no longer in flight."""
        self.records -= 1
        self.bytes -= tracked.size

    def _release(self, tracked: _Tracked) -> None:
        """Count a record as no longer held."""
        self.held_records -= 1
        self.held_bytes -= tracked.size
