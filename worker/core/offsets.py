"""Which offsets may be committed, how much work is in flight, and how much is held. Pure.

Owned by the poll thread; while that thread is parked inside a rebalance, by the revoke thread.

Two rules carry every promise of delivery:

* A partition's committable offset never passes a record without an acknowledged outcome.
* A partition that is given up and comes back starts a new epoch; what still completes under the
  old one is not counted. Otherwise: offset 7 is in flight, the partition moves to another worker
  and returns, 7 is polled again (epoch 2), and the late acknowledgement of the first 7 would
  resolve the second, whose outcome nobody has acknowledged.

Offsets need not be contiguous: compaction, transaction markers and aborted records leave gaps. A gap
at the end of what there is has no record behind it whose acknowledgement would move the offset past
it. So progress is measured by the source's position too, where nothing before it is open; otherwise
the group would lag behind the end for ever.

A record is *in flight* until its outcome is acknowledged. It is *held* until its offset may be
committed as well: one that is acknowledged behind an older one in flight still takes memory, and
comes again after a crash. So the bound of work in flight is a bound of what is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from worker.core.records import Partition, RawRecord, RecordRef


@dataclass(slots=True)
class _Tracked:
    ref: RecordRef
    size: int
    polled_at: float
    number: int  # of all that were tracked, in poll order
    done: bool = False
    refused: bool | None = None  # see `resolve`


@dataclass(slots=True)
class _Log:
    """One assigned partition."""

    epoch: int
    queue: deque[_Tracked] = field(default_factory=deque)
    by_offset: dict[int, _Tracked] = field(default_factory=dict)
    position: int | None = None  # behind the acknowledged records
    reached: int | None = None  # the source's position: what lies below is tracked, or no record
    begins: int | None = None  # where the group begins, if it had committed nothing
    first: int | None = None  # the first offset that was tracked
    committed: int | None = None

    @property
    def passed(self) -> int | None:
        """Next offset to read, with nothing open before it."""
        known = [
            at for at in (self.position, None if self.queue else self.reached) if at is not None
        ]
        return max(known, default=None)


class OffsetTracker:
    """Tracks every record from poll to acknowledgement.

    Attributes:
        records, bytes: in flight.
        held_records, held_bytes: in flight, and acknowledged behind an older one in flight.
        commits: how many there were so far.
        offsets_committed: offsets that these commits passed, gaps included.
    """

    def __init__(self) -> None:
        self._logs: dict[Partition, _Log] = {}
        self._tracked = 0
        self._verdicts: list[bool] = []
        self.commits = self.offsets_committed = 0
        self.records = self.held_records = 0
        self.bytes = self.held_bytes = 0

    def assign(self, partition: Partition, epoch: int) -> None:
        """Start to track a partition; whatever an older epoch had in flight is fenced."""
        self.revoke(partition)
        self._logs[partition] = _Log(epoch)

    def revoke(self, partition: Partition) -> None:
        """Forget a partition and all that is in flight for it."""
        if log := self._logs.pop(partition, None):
            for tracked in log.queue:
                self._let_go(tracked)
            for tracked in log.by_offset.values():
                self._land(tracked)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions that are tracked."""
        return tuple(self._logs)

    def track(self, record: RawRecord) -> None:
        """Note a polled record before anything else happens to it.

        Raises:
            ValueError: offsets of one partition must come in rising order.
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

    def resolve(self, ref: RecordRef, *, refused: bool | None = None) -> bool:
        """Note an acknowledged outcome; False where the record's epoch is over.

        Args:
            ref: the record.
            refused: whether its topic refused the result, for `verdicts`; None if there was none.
        """
        log = self._current(ref)
        tracked = log.by_offset.pop(ref.offset, None) if log else None
        if log is None or tracked is None:
            return False
        tracked.done, tracked.refused = True, refused
        self._land(tracked)
        while log.queue and log.queue[0].done:
            first = log.queue.popleft()
            self._let_go(first)
            log.position = first.ref.offset + 1
            if first.refused is not None:
                self._verdicts.append(first.refused)
        return True

    def verdicts(self) -> list[bool]:
        """Whether each result since the last call was refused, in the order of its partition.

        Acknowledgements come in another order: dead letters wait for the results before them.
        """
        found, self._verdicts = self._verdicts, []
        return found

    def forget(self, refs: Iterable[RecordRef]) -> None:
        """Untrack records that were never handed on; they will be polled again.

        They are the newest of their partitions (the batcher keeps poll order), so no record
        after them can have moved the position past them.
        """
        thinned: dict[Partition, _Log] = {}
        for ref in refs:
            log = self._current(ref)
            tracked = log.by_offset.pop(ref.offset, None) if log else None
            if log is not None and tracked is not None:
                log.reached = None  # it passes what is forgotten here
                thinned[Partition(ref.topic, ref.partition)] = log
                self._land(tracked)
                self._let_go(tracked)
        for log in thinned.values():  # once each: there may be thousands of records
            log.queue = deque(t for t in log.queue if t.done or t.ref.offset in log.by_offset)

    def pending(self, partitions: Iterable[Partition]) -> int:
        """Records of these partitions without an acknowledged outcome."""
        return sum(len(self._logs[p].by_offset) for p in partitions if p in self._logs)

    def reach(self, positions: Mapping[Partition, int]) -> None:
        """Note the source's positions, once all that was polled is tracked."""
        for partition, position in positions.items():
            if log := self._logs.get(partition):
                log.reached = position

    def begin(self, positions: Mapping[Partition, int]) -> list[Partition]:
        """Note where the group begins in partitions of which it has committed nothing.

        The first position that is noted under an epoch stands: its commit may be under way, and a
        later choice would skip what lies between.

        Returns:
            The partitions of which this was news.
        """
        fresh = [p for p in positions if p in self._logs and self._logs[p].begins is None]
        for partition in fresh:
            self._logs[partition].begins = positions[partition]
        return fresh

    def begun(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The beginnings that were noted of these partitions."""
        begins = {p: self._logs[p].begins for p in partitions if p in self._logs}
        return {partition: at for partition, at in begins.items() if at is not None}

    def acknowledged(self) -> dict[Partition, int]:
        """Next offset to read by the acknowledgements alone, where it moved since the commit."""
        return self._uncommitted({p: log.position for p, log in self._logs.items()})

    def committable(self) -> dict[Partition, int]:
        """Next offset to read, for each partition where it moved since `mark_committed`."""
        return self._uncommitted({p: log.passed for p, log in self._logs.items()})

    def _uncommitted(self, offsets: Mapping[Partition, int | None]) -> dict[Partition, int]:
        found: dict[Partition, int] = {}
        for partition, offset in offsets.items():
            committed = self._logs[partition].committed
            if offset is not None and (committed is None or offset > committed):
                found[partition] = offset
        return found

    def refs(self, positions: Mapping[Partition, int]) -> tuple[RecordRef, ...]:
        """Positions with the epochs of their partitions."""
        return tuple(
            RecordRef(*partition, offset, self._logs[partition].epoch)
            for partition, offset in positions.items()
            if partition in self._logs
        )

    def mark_committed(self, offsets: Mapping[Partition, int]) -> None:
        """The broker holds these offsets now."""
        self.commits += 1
        for partition, offset in offsets.items():
            if log := self._logs.get(partition):
                before = log.first if log.committed is None else log.committed
                if before is not None:
                    self.offsets_committed += max(0, offset - before)
                log.committed = offset if log.committed is None else max(offset, log.committed)

    def mark_kept(self, refs: Iterable[RecordRef]) -> None:
        """The broker holds these positions now; those of an epoch that is over are ignored."""
        self.mark_committed(
            {Partition(r.topic, r.partition): r.offset for r in refs if self._current(r)}
        )

    def committed(self, partition: Partition) -> int | None:
        """The offset that this worker committed last, None before the first commit."""
        log = self._logs.get(partition)
        return log.committed if log else None

    @property
    def resolved(self) -> int:
        """How many records came before the oldest one in flight; it only rises.

        An acknowledgement behind that one is no progress: its offset can't be committed.
        """
        oldest = self._oldest()
        return oldest.number if oldest else self._tracked

    def oldest(self) -> tuple[RecordRef, float] | None:
        """The oldest record in flight, and when it was polled, seconds of the monotonic clock."""
        oldest = self._oldest()
        return (oldest.ref, oldest.polled_at) if oldest else None

    def _oldest(self) -> _Tracked | None:
        heads = (log.queue[0] for log in self._logs.values() if log.queue)
        return min(heads, key=attrgetter("number"), default=None)

    def _current(self, ref: RecordRef) -> _Log | None:
        log = self._logs.get(Partition(ref.topic, ref.partition))
        return log if log is not None and log.epoch == ref.epoch else None

    def _land(self, tracked: _Tracked) -> None:
        """It is in flight no more."""
        self.records -= 1
        self.bytes -= tracked.size

    def _let_go(self, tracked: _Tracked) -> None:
        """It is held no more."""
        self.held_records -= 1
        self.held_bytes -= tracked.size
