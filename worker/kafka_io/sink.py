"""Outcomes out, at least once; and what every sink does.

The publish thread owns a sink; `check` is the poll thread's. Acknowledgements arrive on the
client's IO thread; there a completion is put into a queue, and nothing else happens. Imports no
inference and no runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from worker.clock import Clock
from worker.core.records import Encoded, RecordRef
from worker.core.replacement import ReplaceOutcome, give_up
from worker.errors import StreamlabelError
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.refusals import Sieve, refusal_of
from worker.kafka_io.send_queue import SendQueue
from worker.kafka_io.sent_batch import GroupView, OnCompletion, SentBatch
from worker.kafka_io.translation import plain
from worker.logs import get_logger

log = get_logger(__name__)

_CATCH_UP = 7.0  # seconds; more than the client ever waits before it connects again


class RecordSink(Protocol):
    """Where outcomes go.

    Attributes:
        commits_offsets: whether the sink also commits the input's offsets.
    """

    commits_offsets: bool

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Take a batch over and `advance`."""
        ...

    def advance(self) -> None:
        """Go on with what was taken over: another try, or a commit that has become due.

        Raises:
            BrokerAway: call again.
            Fatal: the worker must stop.
        """
        ...

    def keep(self, positions: Sequence[RecordRef]) -> None:
        """Poll thread: commit these next offsets to read too, where the sink commits offsets.

        Nothing before them is open. A later one of the same partition takes the earlier one's place.
        """
        ...

    def check(self) -> None:
        """Poll thread, now and then: what the client does not say.

        Raises:
            TopicMissing: a topic that is published to was deleted.
        """
        ...

    def request_commit(self) -> None:
        """Any thread: somebody waits for what was taken over; do not wait for company."""
        ...

    def close(self, timeout: float) -> None:
        """Wait for what was sent up to `timeout` seconds, then drop what is left."""
        ...


class KafkaSink:
    """At least once: an idempotent producer; the offsets are committed by the poll thread.

    The client tries for as long as it takes, and alone knows what the broker has stored already.
    But its sender has been seen to forget a batch for ever, after a broker was killed. A producer
    that does nothing for a record although it could is therefore replaced, and its successor sends
    what was not acknowledged, in poll order. A batch waits until a producer has all of it, whether it
    is new or was taken back from another producer, and nothing overtakes it. Walked through:

    * *An answer arrives meanwhile.* Once a batch has left its producer, that one's callbacks are
      ignored; what was acknowledged in time is told by the records' own futures.
    * *The hand-over is interrupted*: the group is in doubt, the broker away. The rest still
      waits, and the next `advance` goes on there.
    * *The old producer wakes up.* It is halted before the new one sends anything. What it had on
      the wire by then may be stored a second time, as after a kill.
    * *A record is refused*, and its batch with it. The client sends nothing more, for the broker
      waits for the sequence number at which the refused batch began, and would call all that comes
      later out of order. Requests to other partitions are answered first. Then another
      producer, whose sequence numbers begin at zero, sends in poll order what was not
      acknowledged, with another outcome in the place of the refused one.
    * *Has anything overtaken it?* No result: the client has one request at a time under way for a
      partition. And no dead letter, should the other outcome be one: the `SendQueue` keeps dead letters
      back until every result before them is acknowledged.
    * *A dead letter is refused*, for which there is no other outcome. It stays out, with what
      follows it in its partition; the rest is sent, and then the worker stops. A restart begins
      with that dead letter, and publishes nothing again: the `SendQueue` sends nothing past the first
      dead letter until it is acknowledged.

    Args:
        make_publisher: makes a producer.
        patience: seconds that the client may do nothing for a record; more than a request takes.
        on_completion: called on the client's IO thread; must only enqueue.
        source: knows which assignments still stand; what was polled under others is not
            published, for another worker has it now.
        clock: stamps the hand-over.
        replace_outcome: gives another outcome for one that its topic refuses; raises PublishRefused where
            there is none.
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
        self._line = SendQueue(on_completion)
        self._sieve = Sieve(replace_outcome)
        self._refused_at: float | None = None
        self._closed = False
        self._look_after = clock.monotonic() + patience
        self._publisher = make_publisher()
        self._successor: Publisher | None = None

    @property
    def _sent(self) -> list[SentBatch]:
        """Batches that are not acknowledged, for harnesses that count them."""
        return self._line.batches

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Hand a batch to the client; a completion follows when all of it is acknowledged.

        Raises:
            BrokerAway: not all was handed over yet; call `advance`.
            Fatal: the topic is gone or forbidden, or a dead letter is refused.
        """
        if self._sieve.final is None:
            self._line.add(outcomes)
        self.advance()

    def advance(self) -> None:
        """Hand over what waits, to a producer that works."""
        self._line.let_go()
        if not self._sifted():
            return
        self._look()
        if self._line.waiting:
            self._publisher.await_metadata()
        for batch in self._line.due():
            batch.send_by(self._publisher, self._source, self._clock, self._sieve)
            if batch.refused:
                return
            self._line.handed_over(batch)
        if self._sieve.final is not None and not self._line.waiting:
            raise self._sieve.final

    def keep(self, positions: Sequence[RecordRef]) -> None:
        """Nothing to do: the poll thread commits."""

    def check(self) -> None:
        """Raises TopicMissing where a topic was deleted."""
        self._publisher.check()

    def request_commit(self) -> None:
        """Nothing to do: the client sends at once."""

    def close(self, timeout: float) -> None:
        """Wait for acknowledgements up to `timeout` seconds, then drop what is left."""
        self._closed = True
        # The publish thread may be about to replace the one by the other.
        successor, publisher = self._successor, self._publisher
        try:
            if successor is not None:
                successor.abandon()
        finally:
            publisher.close(timeout)

    # -- a record that is refused ---------------------------------------------------------------

    def _sifted(self) -> bool:
        """Go on after a refusal; False while what is on the wire is not answered, or at the end.

        Raises:
            BrokerAway: there is no other producer to be had; call again.
        """
        batches = self._line.batches
        if self._closed or any(batch.failed for batch in batches):
            return False
        if not any(batch.refused for batch in batches):
            return True
        now = self._clock.monotonic()
        self._refused_at = now if self._refused_at is None else self._refused_at
        answered = all(batch.answered for batch in batches)
        if not answered and now < self._refused_at + self._patience:
            return False
        successor = self._make_publisher()
        if self._closed:
            successor.abandon()
            return False
        self._replace_by(successor)
        self._refused_at = None
        self._sift()
        return True

    def _sift(self) -> None:
        """Take all back that was not acknowledged, with other outcomes for what was refused."""
        told = self._line.take_back()
        replaced = self._sieve.replaced([one for one, _ in told], [error for _, error in told])
        refused = [plain(error) for _, error in told if error and refusal_of(error)]
        log.warning(
            "records were refused; another producer goes on with other outcomes for them",
            records=len(refused),
            reason=next(iter(refused), "unknown"),
            sent_again=len(replaced),
        )
        left = self._sieve.passing(replaced)
        self._line.add(sorted(left, key=lambda one: one.ref))  # some results are letters now

    # -- a client that forgets -----------------------------------------------------------------

    def _look(self) -> None:
        """Now and then: is there a producer to replace?

        A successor is made at one look and takes over at the next: it shows that brokers can be
        reached, and a client that was frozen or cut off has until then to catch up.
        """
        now = self._clock.monotonic()
        if now < self._look_after:
            return
        self._look_after = now + max(self._patience / 4, _CATCH_UP)
        neglected = self._neglected(now - self._patience)
        successor, self._successor = self._successor, None
        if successor is None:
            self._successor = self._new_successor() if neglected else None
        elif any(map(successor.has_leader, neglected)):
            self._replace_by(successor)
            log.warning(
                "the producer had stopped sending, another one goes on: expect repeats",
                records=sum(len(batch.unacknowledged) for batch in self._line.waiting),
            )
        else:  # it has caught up, or waits for a leader as anyone would
            successor.abandon()

    def _neglected(self, since: float) -> set[Any]:
        # Most of the time the first batch is young, and the client is not asked.
        first = next(iter(self._line.batches), None)
        old = first is not None and first.sent_at < since
        return self._publisher.neglected(since) if old else set()

    def _new_successor(self) -> Publisher | None:
        """None where it can't be had: it is tried on suspicion, and must not stop the worker.

        What is really refused, the producer in use is told itself.
        """
        try:
            successor = self._make_publisher()
        except StreamlabelError as error:
            log.debug("no other producer can be had", reason=str(error))
            return None
        try:
            successor.await_metadata()
        except StreamlabelError as error:
            log.debug("no other producer can be had", reason=str(error))
            successor.abandon()
            return None
        return successor

    def _replace_by(self, successor: Publisher) -> None:
        before, self._publisher = self._publisher, successor
        self._line.recall()
        before.abandon()
