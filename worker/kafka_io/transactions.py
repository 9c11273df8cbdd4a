"""Outcomes out, exactly once: results, dead letters and offsets in one transaction.

The publish thread owns the sink; `request_commit` is for any thread, `check` the poll thread's. Imports no inference and no
runtime.

One rule recovers from every fault: the producer is thrown away, and a new one with the same
transactional id goes on with all that was not committed. Walked through:

* *An answer is lost.* The broker may have committed, and the client says only that something
  failed. The new producer's `begin_epoch` ends whatever was open, one way or the other; only then
  the group's committed offsets are read, and what lies below them is done.
* *The transaction timed out* (a pause, a cut network). The broker has aborted it and bumped the
  producer's epoch. The new producer gets the next epoch; everything is sent again.
* *A partition went away under an open transaction.* Before the commit the group's generation is
  noted first, then every outcome's assignment is checked. Had a partition gone before the check,
  the check sees it; if it goes after, the noted generation is over and the broker refuses the
  offsets. Either way nothing is committed, and the next try leaves that partition out.
* *A record is refused.* The client can only abort. The broker has told which record it was, or,
  where it named none, each of the refused batch is sent alone in the next try, and the one that is
  refused again was it. Another outcome takes its place, and everything goes out again by the next
  producer: its sequence numbers start at zero, so none is missing where the refused batch was.
* *A dead letter is refused*, for which there is no other outcome. It stays out with all that
  follows it in its partition; the rest is committed, and then the worker stops. So its restart
  begins with that record and publishes nothing twice.
* *This worker is the zombie.* Its producer is fenced like one whose transaction timed out, and it
  opens another. But its generation is over, and in a static group its member id too: the broker
  refuses its offsets, whatever the producer.

Positions without an outcome (`keep`) go the same way: the consumer's own commit could be held up on
the wire and arrive behind a transaction's later offset. A transaction that holds positions alone
writes no marker to the output topics. So workers in a chain don't keep each other busy with markers.

The client itself could abort and go on with the same producer. But it keeps the offsets that were
refused, and sends them again with the next transaction, for partitions that have another owner by
then.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    TransactionalIdAuthorizationFailedError,
)

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
from worker.kafka_io.connection import connect
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.refusals import Sieve, refusal_of
from worker.kafka_io.sent_batch import GroupView, OnCompletion
from worker.kafka_io.translation import plain, translate
from worker.logs import get_logger
from worker.settings import Settings

log = get_logger(__name__)

MakePublisher = Callable[[str], Publisher]

# Told as it is: another producer would fare no better, or the cause is waited out.
_AS_IT_IS = (AccessDenied, PublishRefused, TopicMissing, BrokerAway)
_TRIES = 10  # in a row, for errors that nobody knows; the broker's absence is waited out
_ABORT = 2.0  # seconds at most for the goodbye


class TransactionalSink:
    """Exactly once, for readers with `read_committed`.

    Batches arrive in poll order and a transaction takes them in that order, so the largest offset
    of a partition in it, plus one, is where a successor must go on.

    Args:
        settings: cluster, group, and how long a transaction stays open for more batches.
        make_publisher: makes a producer with a transactional id.
        on_completion: called on the publish thread; must only enqueue.
        source: knows which assignments still stand.
        clock: says when a commit is due.
        replace_outcome: gives another outcome for one that its topic refuses; raises PublishRefused where
            there is none.
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
    ) -> None:
        self._settings, self._make_publisher = settings, make_publisher
        self._on_completion, self._source, self._clock = on_completion, source, clock
        self._sieve = Sieve(replace_outcome)
        self._id = transactional_id(settings)
        self._in_a_hurry = threading.Event()
        self._failures = 0
        self._held: list[Encoded] = []  # not committed yet, in poll order
        self._sent: list[Any] = []  # the futures of those that are in the open transaction
        self._told: queue.SimpleQueue[Sequence[RecordRef]] = queue.SimpleQueue()
        self._kept: dict[Partition, RecordRef] = {}  # positions that are not committed yet
        self._begun_at: float | None = None
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
        self._held.extend(outcomes)
        self.advance()

    def advance(self) -> None:
        """Send what waits, and commit if it is time."""
        while not self._told.empty():
            self._kept |= {_of(ref): ref for ref in self._told.get()}
        try:
            if self._held or self._kept:
                self._go_on()
        except (KafkaError, StreamlabelError) as error:
            if isinstance(error, BrokerAway) and self._begun_at is None:
                raise  # nothing is open that would have to be found out about
            raise self._start_over(error) from error
        if self._sieve.final is not None:
            raise self._sieve.final

    def keep(self, positions: Sequence[RecordRef]) -> None:
        """Poll thread: commit these with the next transaction, or in one of their own."""
        self._told.put(positions)

    def check(self) -> None:
        """Raises TopicMissing where a topic was deleted."""
        publisher = self._publisher  # the publish thread may be about to give it up
        if publisher is not None:
            publisher.check()

    def request_commit(self) -> None:
        """Commit at the next `advance`."""
        self._in_a_hurry.set()

    def close(self, timeout: float) -> None:
        """Abort what is open; it was never committed, and comes again to a successor."""
        publisher = self._publisher  # the publish thread may be about to give it up
        if publisher is None:
            return
        try:
            if self._begun_at is not None:
                publisher.abort(min(_ABORT, timeout))
        finally:
            publisher.abandon()

    def _go_on(self) -> None:
        publisher = self._publisher = self._publisher or self._recover()
        sent = len(self._sent)
        fresh = self._held[sent:] = self._current(self._held[sent:])
        self._kept = {p: ref for p, ref in self._kept.items() if self._source.current(ref)}
        if not self._held and not self._kept:
            return
        if self._begun_at is None:
            publisher.await_metadata()
            publisher.begin()
            self._begun_at = self._clock.monotonic()
        for outcome in fresh:
            self._sent.append(publisher.send(outcome))
            if self._sieve.alone(outcome):
                publisher.settle(self._sent[-1])
        if self._due():
            self._commit(publisher)

    def _due(self) -> bool:
        begun_at = self._begun_at or 0.0
        late = self._clock.monotonic() - begun_at >= self._settings.commit_every
        urgent = self._in_a_hurry.is_set() or self._sieve.final is not None
        return late or urgent or not self._held

    def _commit(self, publisher: Publisher) -> None:
        membership = self._source.group_metadata()
        kept = tuple(self._kept.values())
        refs = (*kept, *(outcome.ref for outcome in self._held))
        # Without a generation the broker would take the offsets unchecked, as a lone consumer's.
        if membership.generation_id < 0 or not all(map(self._source.current, refs)):
            raise BrokerAway("the assignment changed under an open transaction")
        publisher.commit(_next_offsets(kept, self._held), membership, self._sent)
        self._in_a_hurry.clear()
        done, sent_at = tuple(self._held), self._begun_at or 0.0
        self._held, self._sent, self._begun_at, self._failures = [], [], None, 0
        self._kept = {}
        self._sieve.settled()
        self._on_completion(Completion(done, sent_at, kept=kept))

    def _current(self, outcomes: Iterable[Encoded]) -> list[Encoded]:
        return [outcome for outcome in outcomes if self._source.current(outcome.ref)]

    # -- after a fault -------------------------------------------------------------------------

    def _start_over(self, error: Exception) -> StreamlabelError:
        """Give the producer up; what to tell the stage."""
        publisher, self._publisher = self._publisher, None
        sent, self._begun_at, self._sent = self._sent, None, []
        self._failures += 1
        if publisher is None:
            return self._judge(error)
        cause = self._judge(publisher.last_error or error)
        try:
            if not isinstance(cause, BrokerAway):  # nobody comes after it to end its transaction
                publisher.abort(_ABORT)
        finally:
            publisher.abandon()
        return self._sift(sent, cause) if isinstance(cause, PublishRefused) else cause

    def _sift(self, sent: Iterable[Any], cause: PublishRefused) -> StreamlabelError:
        """Have another outcome for each record that was refused."""
        told = [future.exception for future in sent]
        refused = [error for error in told if error and refusal_of(error)]
        if not refused:
            return cause
        self._failures = 0
        replaced = self._sieve.replaced(self._held[: len(told)], told)
        self._held = self._sieve.passing([*replaced, *self._held[len(told) :]])
        return BrokerAway(
            f"a transaction is tried again with other outcomes for {len(refused)} refused records: "
            f"{plain(refused[0])}"
        )

    def _judge(self, error: Exception) -> StreamlabelError:
        cause = translate(error)
        if isinstance(error, FencedInstanceIdError) or isinstance(cause, _AS_IT_IS):
            return cause
        if self._failures >= _TRIES and not isinstance(cause, Fenced):
            return Fatal(f"{self._failures} transactions in a row failed: {cause}")
        return BrokerAway(f"a transaction failed, and is tried anew: {cause}")

    def _recover(self) -> Publisher:
        """A new producer, after finding out what became of the old one's transaction."""
        publisher = self._new_publisher()
        try:
            asked = {_of(outcome.ref) for outcome in self._held} | self._kept.keys()
            reached = _committed(self._settings, asked)
        except BaseException:
            publisher.abandon()
            raise
        done = tuple(o for o in self._held if o.ref.offset < reached[_of(o.ref)])
        kept = tuple(ref for p, ref in self._kept.items() if ref.offset <= reached[p])
        self._held = [o for o in self._held if o.ref.offset >= reached[_of(o.ref)]]
        self._kept = {p: ref for p, ref in self._kept.items() if ref.offset > reached[p]}
        log.info("a transaction is tried anew", committed_after_all=len(done), left=len(self._held))
        if done or kept:
            self._on_completion(Completion(done, self._clock.monotonic(), kept=kept))
        return publisher

    def _new_publisher(self) -> Publisher:
        publisher = self._make_publisher(self._id)
        try:
            publisher.begin_epoch()
        except KafkaError as error:
            # Another try makes another producer; this one must not fence it later.
            publisher.abandon()
            if isinstance(error, TransactionalIdAuthorizationFailedError):
                raise AccessDenied(self._right()) from error
            raise
        return publisher

    def _right(self) -> str:
        return (
            f"Kafka: the broker refuses the transactional id {self._id!r}: grant this worker's user "
            "WRITE on transactional ids with the prefix "
            f"'{self._settings.kafka.group_id}-', then start it again"
        )


def transactional_id(settings: Settings) -> str:
    """Stable for a worker slot where `kafka.group_instance_id` names one: a successor fences it.

    Otherwise unique to the process: a zombie is then fenced by its group generation (KIP-447),
    and the transaction that it left open ends at `transaction_timeout`.
    """
    slot = settings.kafka.group_instance_id or uuid.uuid4().hex
    return f"{settings.kafka.group_id}-{slot}"


def _committed(settings: Settings, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """The group's stable offsets, -1 for none, asked by a consumer that joins no group."""
    consumer = connect(
        KafkaConsumer,
        settings.kafka,
        group_id=settings.kafka.group_id,
        enable_auto_commit=False,
        isolation_level="read_committed",  # or offsets of a transaction under way would be told
    )
    timeout_ms = settings.kafka.request_timeout * 1000
    with contextlib.closing(consumer):
        found = {
            p: consumer.committed(TopicPartition(*p), timeout_ms=timeout_ms) for p in partitions
        }
    return {partition: -1 if offset is None else offset for partition, offset in found.items()}


def _of(ref: RecordRef) -> Partition:
    return Partition(ref.topic, ref.partition)


def _next_offsets(kept: Iterable[RecordRef], outcomes: Iterable[Encoded]) -> Mapping[Any, Any]:
    """An outcome came after the position of its partition was told: nothing was open then."""
    highest = {_of(ref): ref.offset for ref in kept}
    highest |= {_of(outcome.ref): outcome.ref.offset + 1 for outcome in outcomes}
    return {TopicPartition(*p): OffsetAndMetadata(o, "", -1) for p, o in highest.items()}
