"""Publishes outcomes at least once; defines the interface of every sink.

Owns: the producer in use, its successor, the queue of batches.
Thread: publish; `check` is the poll thread's. Acknowledgements arrive on the client's IO thread,
which only enqueues a completion.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from worker.clock import Clock
from worker.core.records import Encoded, RecordRef
from worker.core.replacement import ReplaceOutcome, give_up
from worker.errors import BrokerAway, StreamlabelError
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.refusals import RefusalResolver, refusal_of
from worker.kafka_io.send_queue import SendQueue
from worker.kafka_io.sent_batch import GroupView, OnCompletion, SentBatch
from worker.kafka_io.translation import describe
from worker.logs import get_logger

log = get_logger(__name__)

CLOSED = "the worker is stopping and has closed its producers"

_PAUSE = 0.02  # seconds between two tries to send what waits for an acknowledgement
# Seconds that a producer has to close in any case. A caller that gives no more than these may not
# have waited for the publish thread.
_LEAST_CLOSE = 0.1
_CATCH_UP_TIME = 7.0  # seconds; more than the client's longest wait before it reconnects


class RecordSink(Protocol):
    """Publishes outcomes.

    Attributes:
        commits_offsets: whether the sink also commits the input's offsets.
    """

    commits_offsets: bool

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Accept a batch and `advance`."""
        ...

    def advance(self) -> None:
        """Continue with what was accepted: another attempt, or a commit that is due.

        Raises:
            BrokerAway: call again.
            Fatal: the worker must stop.
        """
        ...

    def keep(self, positions: Sequence[RecordRef]) -> None:
        """Poll thread: commit these next offsets to read too, if the sink commits offsets.

        No record before them is in flight. A later position of a partition replaces an earlier one.
        """
        ...

    def check(self) -> None:
        """Poll thread, from time to time: report what the client does not.

        Raises:
            TopicMissing: an output topic was deleted.
        """
        ...

    def request_commit(self) -> None:
        """Any thread: publish what was accepted without waiting for more, as a caller waits."""
        ...

    def close(self, timeout: float) -> None:
        """Wait for acknowledgements up to `timeout` seconds, then drop the rest."""
        ...


class KafkaSink:
    """At least once: an idempotent producer; the poll thread commits the offsets.

    The client retries for as long as it takes, and only the client knows what the broker has stored
    already. But its sender has been seen to forget a batch for good after a broker was killed. So a
    producer that does nothing for a record although it could is replaced, and its successor sends
    what was not acknowledged, in poll order. A batch waits until a producer has all of it, whether
    it is new or was taken back from another producer, and no batch overtakes it. Walked through:

    * *An acknowledgement arrives meanwhile.* Once a batch is detached from its producer, that
      producer's callbacks are ignored; the records' own futures show what was acknowledged in time.
    * *Sending is interrupted*: the membership is unconfirmed, or the broker is away. The rest still
      waits, and the next `advance` continues there.
    * *The old producer resumes.* It is halted before the new one sends anything. Its requests in
      flight may be stored as well, so records may be published twice, as after a kill.
    * *A record is refused*, and its batch with it. The client sends nothing more, as the broker
      expects the sequence number at which the refused batch began, and would call all later ones
      out of order. The sink waits for the requests to other partitions. Then another producer,
      whose sequence numbers begin at zero, sends in poll order what was not acknowledged, with
      a replacement for the refused outcome.
    * *Can anything be overtaken?* No result: the client has one request at a time in flight for a
      partition. And no dead letter, if the replacement is one: the `SendQueue` holds dead letters
      back until every result before them is acknowledged.
    * *A dead letter is refused* and has no replacement. It is left out with all that follows it in
      its partition; the rest is sent, and then the worker stops. A restart begins with that dead
      letter and publishes nothing twice: the `SendQueue` sends nothing after the first dead letter
      until that is acknowledged.

    Args:
        make_publisher: makes a producer.
        patience: seconds for which the client may do nothing for a record; more than a request's.
        on_completion: called on the client's IO thread; must only enqueue.
        source: knows which assignments are current; records of other assignments are not published,
            as another worker owns their partitions.
        clock: stamps the time of sending.
        replace_outcome: returns another outcome for one that its topic refused; raises
            PublishRefused if there is none.
    """

    commits_offsets = False

    def __init__(
        self,
        make_publisher: Callable[[], Publisher],
        patience: float,
        on_completion: OnCompletion,
        source: GroupView,
        clock: Clock,
        replace_outcome: ReplaceOutcome = give_up,
    ) -> None:
        self._make_publisher, self._patience = make_publisher, patience
        self._source, self._clock = source, clock
        self._queue = SendQueue(on_completion)
        self._resolver = RefusalResolver(replace_outcome)
        self._refused_at: float | None = None
        self._closed = False
        self._next_inspection = clock.monotonic() + patience
        self._publisher = make_publisher()
        self._successor: Publisher | None = None

    @property
    def unacknowledged_batches(self) -> list[SentBatch]:
        """Batches that are not acknowledged."""
        return self._queue.batches

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Send a batch; a completion follows once all of it is acknowledged.

        Raises:
            BrokerAway: a part is not sent yet; call `advance`.
            Fatal: the topic is deleted or forbidden, or a dead letter is refused.
        """
        if self._resolver.final_error is None:
            self._queue.add(outcomes)
        self.advance()

    def advance(self) -> None:
        """Send what waits, through a working producer."""
        self._queue.drop_acknowledged()
        if not self._recover_from_refusals():
            return
        self._inspect_producer()
        if self._queue.waiting:
            self._publisher.await_metadata()
        for batch in self._queue.due():
            batch.send(self._publisher, self._source, self._clock, self._resolver)
            if batch.refused:
                return
            self._queue.mark_sent(batch)
        if self._resolver.final_error is not None and not self._queue.waiting:
            raise self._resolver.final_error

    def keep(self, positions: Sequence[RecordRef]) -> None:
        """Do nothing: the poll thread commits."""

    def check(self) -> None:
        """Raise TopicMissing if a topic was deleted."""
        self._publisher.check()

    def request_commit(self) -> None:
        """Do nothing: the client sends at once."""

    def close(self, timeout: float) -> None:
        """Send what waits, await acknowledgements up to `timeout` seconds, then drop the rest.

        A dead letter may wait for the acknowledgement of a result that follows it in its partition.
        Without the dead letter that result can't be committed, and would be published again.
        """
        deadline = self._clock.monotonic() + timeout
        self._send_rest(deadline - _LEAST_CLOSE)
        timeout = max(_LEAST_CLOSE, deadline - self._clock.monotonic())
        self._closed = True
        # The publish thread may be replacing one with the other.
        successor, publisher = self._successor, self._publisher
        try:
            if successor is not None:
                successor.abandon()
        finally:
            publisher.close(timeout)

    def _send_rest(self, deadline: float) -> None:
        while self._queue.waiting and self._clock.monotonic() < deadline:
            if any(batch.failed for batch in self._queue.batches):
                return  # its producer has ended
            try:
                self.advance()
            except StreamlabelError as error:
                log.warning("outcomes not published while stopping", reason=str(error))
                return
            self._clock.sleep(_PAUSE)

    # -- a record that is refused ---------------------------------------------------------------

    def _recover_from_refusals(self) -> bool:
        """Return whether batches may be sent, after replacing refused records if there are any.

        False while requests are in flight after a refusal, and when the sink ends.

        Raises:
            BrokerAway: another producer can't be made now, or the sink is closed; call again.
        """
        batches = self._queue.batches
        if self._closed or any(batch.failed for batch in batches):
            return False
        if not any(batch.refused for batch in batches):
            return True
        now = self._clock.monotonic()
        self._refused_at = now if self._refused_at is None else self._refused_at
        answered = all(batch.answered for batch in batches)
        if not answered and now < self._refused_at + self._patience:
            return False
        self._replace_publisher(self._make_publisher())
        self._refused_at = None
        self._replace_refused()
        return True

    def _replace_refused(self) -> None:
        """Queue again what was not acknowledged, with replacements for what was refused."""
        unacknowledged = self._queue.take_unacknowledged()
        replaced = self._resolver.replace_refused(
            [outcome for outcome, _ in unacknowledged], [error for _, error in unacknowledged]
        )
        refused = [describe(error) for _, error in unacknowledged if error and refusal_of(error)]
        log.warning(
            "records were refused, another producer sends replacements",
            records=len(refused),
            reason=next(iter(refused), "unknown"),
            sent_again=len(replaced),
        )
        remaining = self._resolver.without_blocked(replaced)
        # Some results are dead letters now, which the queue orders by poll order.
        self._queue.add(sorted(remaining, key=lambda outcome: outcome.ref))

    # -- a client that forgets -----------------------------------------------------------------

    def _inspect_producer(self) -> None:
        """Replace a producer that stalls; does so in two inspections.

        The first makes a successor, which shows that brokers can be reached, and the second lets it
        take over. Until then a client that was frozen or cut off has time to catch up.
        """
        now = self._clock.monotonic()
        if now < self._next_inspection:
            return
        self._next_inspection = now + max(self._patience / 4, _CATCH_UP_TIME)
        stalled = self._stalled_partitions(now - self._patience)
        successor, self._successor = self._successor, None
        if successor is None:
            self._successor = self._make_successor() if stalled else None
            self._end_if_closed(self._successor)
        elif any(map(successor.has_leader, stalled)):
            self._replace_publisher(successor)
            log.warning(
                "a producer stopped sending and was replaced: expect repeats",
                records=sum(len(batch.unacknowledged) for batch in self._queue.waiting),
            )
        else:  # the old one has caught up, or waits for a leader as the successor would
            successor.abandon()

    def _stalled_partitions(self, since: float) -> set[Any]:
        # Usually the first batch is young, and the client need not be inspected.
        first = next(iter(self._queue.batches), None)
        old = first is not None and first.sent_at < since
        return self._publisher.stalled_partitions(since) if old else set()

    def _make_successor(self) -> Publisher | None:
        """Return another producer, or None: a mere suspicion must not stop the worker.

        The producer in use raises a real refusal itself.
        """
        try:
            successor = self._make_publisher()
        except StreamlabelError as error:
            log.debug("no other producer could be made", reason=str(error))
            return None
        try:
            successor.await_metadata()
        except StreamlabelError as error:
            log.debug("no other producer could be made", reason=str(error))
            successor.abandon()
            return None
        return successor

    def _replace_publisher(self, successor: Publisher) -> None:
        self._end_if_closed(successor)  # while acknowledgements still count
        old, self._publisher = self._publisher, successor
        self._queue.requeue()
        old.abandon()
        self._end_if_closed(successor)

    def _end_if_closed(self, publisher: Publisher | None) -> None:
        """End a producer that `close`, on another thread, came too early to see.

        Raises:
            BrokerAway: the sink is closed.
        """
        if self._closed and publisher is not None:
            publisher.abandon()
            raise BrokerAway(CLOSED)
