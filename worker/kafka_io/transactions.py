"""Publishes outcomes exactly once: results, dead letters and offsets in one transaction.

Owns: the transactional producer and what it has not committed.
Thread: publish; `request_commit` is for any thread, `keep` and `check` are the poll thread's.
Must not import: inference, runtime.

One rule recovers from every fault: the producer is discarded, and a new one with the same
transactional id continues with everything that was not committed. Walked through:

* *A response is lost.* The broker may have committed, and the client only says that something
  failed. The new producer's `begin_epoch` ends the open transaction, committed or aborted. Then the
  group's committed offsets are read, and every record below them is done.
* *The transaction timed out* (a pause, a network partition). The broker has aborted it and bumped
  the producer's epoch. The new producer gets the next epoch, and everything is sent again.
* *A partition was revoked during a transaction.* Before the commit, the sink first notes the
  group's generation and then checks every outcome's assignment. If the partition was revoked before
  the check, the check sees it. If it is revoked later, the noted generation is over and the broker
  refuses the offsets. Either way nothing is committed, and the next try omits that partition.
* *A record is refused.* The client can only abort. The broker has named the record; if it has not,
  each record of the refused batch is sent alone in the next try, and the invalid one is refused
  again. A replacement takes its place, and the next producer sends everything again: its sequence
  numbers start at zero, so none is missing where the refused batch was.
* *A dead letter is refused* and has no replacement. It is left out with all that follows it in its
  partition; the rest is committed, and then the worker stops. So its restart begins with that
  record and publishes nothing twice.
* *This worker is a zombie.* Its producer is fenced like one whose transaction timed out, and it
  opens another. But its generation is over, and in a static group its member id too: the broker
  refuses its offsets from any producer.

Positions without an outcome (`keep`) are committed in the same way: a commit by the consumer could
be delayed and arrive after a transaction's later offset. A transaction with positions only writes
no marker to the output topics, so workers in a chain don't wake each other with markers.

The client itself could abort and continue with the same producer. But it keeps the offsets that
were refused, and sends them again with the next transaction, for partitions that have another owner
by then.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    TransactionalIdAuthorizationFailedError,
)

from worker import timeline
from worker.clock import Clock
from worker.core.records import Completion, Encoded, Partition, RecordRef
from worker.core.replacement import ReplaceOutcome, give_up
from worker.errors import (
    AccessDenied,
    BrokerAway,
    Fatal,
    Fenced,
    PublishRefused,
    StreamlabelError,
    TopicMissing,
)
from worker.kafka_io.conversion import commit_request, no_note
from worker.kafka_io.group_offsets import CommittedOffset, committed_offsets
from worker.kafka_io.leader_epochs import unknown_epoch
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.refusals import RefusalResolver, refusal_of
from worker.kafka_io.sent_batch import GroupView, OnCompletion
from worker.kafka_io.sink import CLOSED
from worker.kafka_io.topic_notes import name_different_topics
from worker.kafka_io.translation import describe, translate
from worker.logs import get_logger
from worker.settings import Settings

log = get_logger(__name__)

MakePublisher = Callable[[str], Publisher]

# Raised unchanged: another producer would fail in the same way, or the cause is transient.
_UNCHANGED = (AccessDenied, PublishRefused, TopicMissing, BrokerAway)
_MAX_FAILURES = 10  # in a row, for unknown errors; an absent broker is waited for
_ABORT_TIMEOUT = 2.0  # seconds


class TransactionalSink:
    """Exactly once, for readers with `read_committed`.

    Batches arrive in poll order and a transaction takes them in that order. So a successor must
    continue at a partition's largest offset in it, plus one.

    Args:
        settings: cluster, group, and how long a transaction stays open for more batches.
        make_publisher: makes a producer with a transactional id.
        on_completion: called on the publish thread; must only enqueue.
        source: knows which assignments are current.
        clock: measures when a commit is due.
        note: returns the metadata of a partition's committed offsets.
        leader_epoch: returns the epoch of the leader that wrote a record of the source.
        replace_outcome: returns another outcome for one that its topic refused; raises
            PublishRefused if there is none.
    """

    commits_offsets = True

    def __init__(
        self,
        settings: Settings,
        make_publisher: MakePublisher,
        on_completion: OnCompletion,
        source: GroupView,
        clock: Clock,
        replace_outcome: ReplaceOutcome = give_up,
        *,
        note: Callable[[Partition], str] = no_note,
        leader_epoch: Callable[[Partition, int], int] = unknown_epoch,
    ) -> None:
        self._note, self._leader_epoch = note, leader_epoch
        self._settings, self._make_publisher = settings, make_publisher
        self._on_completion, self._source, self._clock = on_completion, source, clock
        self._resolver = RefusalResolver(replace_outcome)
        self._id = transactional_id(settings)
        self._commit_requested = threading.Event()
        self._failures = 0
        self._uncommitted: list[Encoded] = []  # in poll order
        self._sent: list[Any] = []  # the futures of those that are in the open transaction
        self._new_positions: queue.SimpleQueue[Sequence[RecordRef]] = queue.SimpleQueue()
        self._positions: dict[Partition, RecordRef] = {}  # not committed yet
        self._begun_at: float | None = None
        self._closed = False
        self._publisher: Publisher | None = None
        try:
            self._publisher = self._new_publisher()
        except KafkaError as error:
            raise translate(error) from error

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Add a batch to the transaction; its completion follows the commit.

        Raises:
            BrokerAway: the transaction failed; call `advance`.
            Fenced: a successor has this worker's place in the group.
            Fatal: anything else; nothing uncommitted is visible to `read_committed` readers.
        """
        self._uncommitted.extend(outcomes)
        self.advance()

    def advance(self) -> None:
        """Send what waits, and commit if it is time."""
        while not self._new_positions.empty():
            self._positions |= {_partition(ref): ref for ref in self._new_positions.get()}
        try:
            if self._uncommitted or self._positions:
                self._send_and_commit()
        except (KafkaError, StreamlabelError) as error:
            if isinstance(error, BrokerAway) and self._begun_at is None:
                raise  # there is no transaction whose end would be unknown
            raise self._start_over(error) from error
        if self._resolver.final_error is not None:
            raise self._resolver.final_error

    def keep(self, positions: Sequence[RecordRef]) -> None:
        """Poll thread: commit these with the next transaction, or in one of their own."""
        self._new_positions.put(positions)

    def check(self) -> None:
        """Raise TopicMissing if a topic was deleted."""
        publisher = self._publisher  # the publish thread may discard it meanwhile
        if publisher is not None:
            publisher.check()

    def request_commit(self) -> None:
        """Commit at the next `advance`."""
        self._commit_requested.set()

    def close(self, timeout: float) -> None:
        """Abort the open transaction; a successor gets its records again."""
        self._closed = True
        publisher = self._publisher  # the publish thread may discard it meanwhile
        if publisher is None:
            return
        try:
            if self._begun_at is not None:
                publisher.abort(min(_ABORT_TIMEOUT, timeout))
        finally:
            publisher.abandon()

    def _send_and_commit(self) -> None:
        publisher = self._publisher = self._publisher or self._recover()
        if self._closed:  # maybe before there was this producer
            publisher.abandon()
            raise BrokerAway(CLOSED)
        sent = len(self._sent)
        unsent = self._uncommitted[sent:] = self._current(self._uncommitted[sent:])
        self._positions = {
            p: ref for p, ref in self._positions.items() if self._source.current(ref)
        }
        if not self._uncommitted and not self._positions:
            return
        if self._begun_at is None:
            publisher.await_metadata()
            publisher.begin()
            self._begun_at = self._clock.monotonic()
        for outcome in unsent:
            self._sent.append(publisher.send(outcome))
            if self._resolver.must_be_sent_alone(outcome):
                publisher.settle(self._sent[-1])
        if self._due():
            self._commit(publisher)

    def _due(self) -> bool:
        begun_at = self._begun_at or 0.0
        late = self._clock.monotonic() - begun_at >= self._settings.commit_every
        urgent = self._commit_requested.is_set() or self._resolver.final_error is not None
        return late or urgent or not self._uncommitted

    def _commit(self, publisher: Publisher) -> None:
        membership = self._source.group_metadata()
        kept = tuple(self._positions.values())
        refs = (*kept, *(outcome.ref for outcome in self._uncommitted))
        # Before the check: an outcome that passes it is of the topic and the log that are noted.
        offsets = commit_request(
            _next_offsets(kept, self._uncommitted), self._note, self._leader_epoch
        )
        # Without a generation the broker would accept the offsets unchecked, as a lone consumer's.
        if membership.generation_id < 0 or not all(map(self._source.current, refs)):
            raise BrokerAway("the assignment changed during a transaction")
        with timeline.span("commit", records=len(self._uncommitted)):
            publisher.commit(offsets, membership, self._sent)
        self._commit_requested.clear()
        done, sent_at = tuple(self._uncommitted), self._begun_at or 0.0
        self._uncommitted, self._sent, self._begun_at, self._failures = [], [], None, 0
        self._positions = {}
        self._resolver.all_acknowledged()
        self._on_completion(Completion(done, sent_at, kept=kept))

    def _current(self, outcomes: Iterable[Encoded]) -> list[Encoded]:
        return [outcome for outcome in outcomes if self._source.current(outcome.ref)]

    # -- after a fault -------------------------------------------------------------------------

    def _start_over(self, error: Exception) -> StreamlabelError:
        """Discard the producer; return the error to raise."""
        publisher, self._publisher = self._publisher, None
        sent, self._begun_at, self._sent = self._sent, None, []
        self._failures += 1
        if publisher is None:
            return self._translate(error)
        cause = self._translate(publisher.last_error or error)
        try:
            if not isinstance(cause, BrokerAway):  # no successor will end its transaction
                publisher.abort(_ABORT_TIMEOUT)
        finally:
            publisher.abandon()
        return self._replace_refused(sent, cause) if isinstance(cause, PublishRefused) else cause

    def _replace_refused(self, sent: Iterable[Any], cause: PublishRefused) -> StreamlabelError:
        """Replace each record that was refused; return the error to raise."""
        errors = [future.exception for future in sent]
        refused = [error for error in errors if error and refusal_of(error)]
        if not refused:
            return cause
        self._failures = 0
        replaced = self._resolver.replace_refused(self._uncommitted[: len(errors)], errors)
        rest = self._uncommitted[len(errors) :]
        self._uncommitted = self._resolver.without_blocked([*replaced, *rest])
        return BrokerAway(
            f"retrying a transaction with replacements for refused records ({len(refused)}): "
            f"{describe(refused[0])}"
        )

    def _translate(self, error: Exception) -> StreamlabelError:
        cause = translate(error)
        if isinstance(error, FencedInstanceIdError) or isinstance(cause, _UNCHANGED):
            return cause
        if self._failures >= _MAX_FAILURES and not isinstance(cause, Fenced):
            return Fatal(f"{self._failures} transactions in a row failed: {cause}")
        return BrokerAway(f"a transaction failed, retrying: {cause}")

    def _recover(self) -> Publisher:
        """Return a new producer, after finding out how the old one's transaction ended."""
        publisher = self._new_publisher()
        try:
            partitions = {_partition(o.ref) for o in self._uncommitted} | self._positions.keys()
            committed = self._own(committed_offsets(self._settings, partitions))
        except BaseException:
            publisher.abandon()
            raise

        def is_done(ref: RecordRef) -> bool:
            partition = _partition(ref)
            epoch = self._leader_epoch(partition, ref.offset)
            return committed[partition].covers(ref.offset, epoch)

        outcomes, positions = self._uncommitted, self._positions
        done = tuple(o for o in outcomes if is_done(o.ref))
        kept = tuple(ref for p, ref in positions.items() if ref.offset <= committed[p].offset)
        self._uncommitted = [o for o in outcomes if not is_done(o.ref)]
        self._positions = {
            p: ref for p, ref in positions.items() if ref.offset > committed[p].offset
        }
        log.info("retrying a transaction", already_committed=len(done), left=len(self._uncommitted))
        if done or kept:
            self._on_completion(Completion(done, self._clock.monotonic(), kept=kept))
        return publisher

    def _own(
        self, committed: Mapping[Partition, CommittedOffset]
    ) -> dict[Partition, CommittedOffset]:
        """Take an offset of an earlier topic of the same name for none."""
        return {
            p: CommittedOffset(-1) if name_different_topics(at.note, self._note(p)) else at
            for p, at in committed.items()
        }

    def _new_publisher(self) -> Publisher:
        publisher = self._make_publisher(self._id)
        try:
            publisher.begin_epoch()
        except KafkaError as error:
            # Another try makes another producer, which this one must not fence later.
            publisher.abandon()
            if isinstance(error, TransactionalIdAuthorizationFailedError):
                raise AccessDenied(self._missing_right()) from error
            raise
        return publisher

    def _missing_right(self) -> str:
        return (
            f"Kafka: the broker refuses the transactional id {self._id!r}: grant this worker's user "
            "WRITE on transactional ids with the prefix "
            f"'{self._settings.kafka.group_id}-', then restart the worker"
        )


def transactional_id(settings: Settings) -> str:
    """Return the transactional id of this worker.

    It is stable if `kafka.group_instance_id` names the worker's slot, so that a successor fences
    its predecessor. Otherwise it is unique to the process: the group's generation then fences
    a zombie (KIP-447), and a transaction that it left open ends at `transaction_timeout`.
    """
    slot = settings.kafka.group_instance_id or uuid.uuid4().hex
    return f"{settings.kafka.group_id}-{slot}"


def _partition(ref: RecordRef) -> Partition:
    return Partition(ref.topic, ref.partition)


def _next_offsets(kept: Iterable[RecordRef], outcomes: Iterable[Encoded]) -> dict[Partition, int]:
    """Return the offsets to commit.

    An outcome of a partition is later than its position: no record was in flight at the position.
    """
    offsets = {_partition(ref): ref.offset for ref in kept}
    return offsets | {_partition(o.ref): o.ref.offset + 1 for o in outcomes}
