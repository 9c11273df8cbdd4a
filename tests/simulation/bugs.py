"""Bugs that are planted, to check that the simulator finds what it is for.

Each takes one line of defence out of the production code. Chaos meets most of them once in many
hours, if at all: they need a fault at one moment among thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from worker.core.copies import Whole, Wholes
from worker.core.offsets import OffsetTracker, _Log
from worker.core.records import Completion, Encoded, Partition
from worker.errors import BrokerAway
from worker.kafka_io.send_queue import SendQueue
from worker.kafka_io.sent_batch import SentBatch
from worker.kafka_io.transactions import TransactionalSink
from worker.runtime.commits import Commits
from worker.runtime.rebalance import Rebalance
from worker.runtime.service import Worker

Patch = tuple[type, str, Any]


def _resend_lost_in_doubt() -> Iterable[Patch]:
    """A hand-over to another producer that is interrupted is not taken up again."""
    send = SentBatch.send

    def forgetful(self: SentBatch, *parts: Any) -> None:
        try:
            send(self, *parts)
        except BrokerAway:
            self._unsent.clear()
            raise

    yield SentBatch, "send", forgetful


def _memory_behind_a_head() -> Iterable[Patch]:
    """The bound counts records without an outcome, and forgets those that wait behind them."""
    yield OffsetTracker, "held_records", property(lambda self: self.records, lambda *_: None)
    yield OffsetTracker, "held_bytes", property(lambda self: self.bytes, lambda *_: None)


def _lost_reply_taken_for_failure() -> Iterable[Patch]:
    """After a commit whose answer was lost, everything is sent again."""

    def recover(self: TransactionalSink) -> Any:
        return self._new_publisher()

    yield TransactionalSink, "_recover", recover


def _late_commit_of_a_revoked_partition() -> Iterable[Patch]:
    """The position of a partition that went to another worker is committed once more."""
    revoke, committable = OffsetTracker.revoke, OffsetTracker.committable

    def keeping(self: Any, partition: Partition) -> None:
        log = self._logs.get(partition)
        if log is not None and log.position is not None:
            self.__dict__.setdefault("kept", {})[partition] = log.position
        revoke(self, partition)

    def with_kept(self: Any) -> dict[Partition, int]:
        offsets = committable(self)
        return {**self.__dict__.pop("kept", {}), **offsets} if offsets else offsets

    yield OffsetTracker, "revoke", keeping
    yield OffsetTracker, "committable", with_kept


def _position_over_an_open_record() -> Iterable[Patch]:
    """The source's position is committed, whether or not records before it are open."""

    def passed(self: _Log) -> int | None:
        return max((o for o in (self.position, self.reached) if o is not None), default=None)

    yield _Log, "passed", property(passed)


def _start_position_forgotten() -> Iterable[Patch]:
    """The group's first position is used and not committed."""

    def commit_start(self: Commits, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        return self._offsets.begun(partitions)

    yield Commits, "commit_start", commit_start


def _no_drain_on_revoke() -> Iterable[Patch]:
    """Partitions are given back with records in flight."""
    yield Rebalance, "_drain", lambda *_: None


def _batcher_kept_at_a_stop() -> Iterable[Patch]:
    """A worker that stops waits for records that no stage has received."""
    shut_down = Worker._shut_down

    def keeping(self: Worker, fault: Any) -> None:
        self._intake.discard = lambda: None  # type: ignore[method-assign]
        shut_down(self, fault)

    yield Worker, "_shut_down", keeping


def _refusal_skips_the_rest() -> Iterable[Patch]:
    """After a refusal, what the client dropped unsent is taken for sent."""
    take = SendQueue.take_unacknowledged

    def only_refused(self: SendQueue) -> list[tuple[Encoded, Exception | None]]:
        rest = take(self)
        return [pair for pair in rest if pair[1] is not None] or rest

    yield SendQueue, "take_unacknowledged", only_refused


def _failed_transaction_taken_for_committed() -> Iterable[Patch]:
    """A transaction whose commit failed is reported as done."""
    start_over = TransactionalSink._start_over

    def swallow(self: TransactionalSink, error: Exception) -> Any:
        held, self._uncommitted = tuple(self._uncommitted), []
        self._on_completion(Completion(held, 0.0))
        return start_over(self, error)

    yield TransactionalSink, "_start_over", swallow


def _offset_ahead_of_copies() -> Iterable[Patch]:
    """A record counts as done with its outcome, whether or not its copies are acknowledged."""

    def add(_: Wholes, acknowledged: Iterable[Encoded]) -> list[Whole]:
        return [Whole(part) for part in acknowledged if not part.is_copy]

    yield Wholes, "add", add


BUGS: Final[Mapping[str, Callable[[], Iterable[Patch]]]] = {
    "resend_lost_in_doubt": _resend_lost_in_doubt,
    "memory_behind_a_head": _memory_behind_a_head,
    "lost_reply_taken_for_failure": _lost_reply_taken_for_failure,
    "late_commit_of_a_revoked_partition": _late_commit_of_a_revoked_partition,
    "position_over_an_open_record": _position_over_an_open_record,
    "start_position_forgotten": _start_position_forgotten,
    "no_drain_on_revoke": _no_drain_on_revoke,
    "batcher_kept_at_a_stop": _batcher_kept_at_a_stop,
    "refusal_skips_the_rest": _refusal_skips_the_rest,
    "offset_ahead_of_copies": _offset_ahead_of_copies,
    "failed_transaction_taken_for_committed": _failed_transaction_taken_for_committed,
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with a bug.

    Raises:
        KeyError: there is no bug of this name.
    """
    patches = [mock.patch.object(*patch, create=True) for patch in BUGS[name]()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
