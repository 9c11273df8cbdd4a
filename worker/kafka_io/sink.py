"""Outcomes out, at least once; and what every sink does.

The publish thread owns a sink; `check` is the poll thread's. Acknowledgements arrive on the
client's IO thread; there a completion is put into a queue, and nothing else happens. Imports no
inference and no runtime.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol

from worker.clock import Clock
from worker.core.records import Completion, Encoded, RecordRef
from worker.errors import StreamlabelError
from worker.kafka_io.publisher import Publisher, refusal
from worker.logs import get_logger

log = get_logger(__name__)

_CATCH_UP = 7.0  # seconds; more than the client ever waits before it connects again

OnCompletion = Callable[[Completion], None]


class Membership(Protocol):
    """What a sink asks of the source; safe on any thread."""

    def current(self, ref: RecordRef) -> bool: ...
    def group_metadata(self) -> Any: ...


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

    def check(self) -> None:
        """Poll thread, now and then: what the client does not say.

        Raises:
            TopicMissing: a topic that is published to was deleted.
        """
        ...

    def hurry(self) -> None:
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

    Args:
        make_publisher: makes a producer.
        patience: seconds that the client may do nothing for a record; more than a request takes.
        on_completion: called on the client's IO thread; must only enqueue.
        source: knows which assignments still stand; what was polled under others is not
            published, for another worker has it now.
        clock: stamps the hand-over.
    """

    commits_offsets = False

    def __init__(
        self,
        make_publisher: Callable[[], Publisher],
        patience: float,
        on_completion: OnCompletion,
        source: Membership,
        clock: Clock,
    ) -> None:
        self._make_publisher, self._patience = make_publisher, patience
        self._on_completion = on_completion
        self._source, self._clock = source, clock
        # Both in poll order, and what waits comes after what was sent.
        self._sent: deque[_Sent] = deque()
        self._waiting: deque[_Sent] = deque()
        self._look_after = clock.monotonic() + patience
        self._publisher = make_publisher()
        self._successor: Publisher | None = None

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Hand a batch to the client; one completion follows when all of it is acknowledged.

        Raises:
            BrokerAway: not all was handed over yet; call `advance`.
            Fatal: the topic is gone or forbidden, or the client refuses a record.
        """
        self._waiting.append(_Sent(outcomes, self._on_completion))
        self.advance()

    def advance(self) -> None:
        """Hand over what waits, to a producer that works."""
        self._sent = deque(batch for batch in self._sent if not batch.done)
        self._look()
        if self._waiting:
            self._publisher.await_metadata()
        while self._waiting:
            self._waiting[0].send_by(self._publisher, self._source, self._clock)
            self._sent.append(self._waiting.popleft())

    def check(self) -> None:
        """Raises TopicMissing where a topic was deleted."""
        self._publisher.check()

    def hurry(self) -> None:
        """Nothing to do: the client sends at once."""

    def close(self, timeout: float) -> None:
        """Wait for acknowledgements up to `timeout` seconds, then drop what is left."""
        # The publish thread may be about to replace the one by the other.
        successor, publisher = self._successor, self._publisher
        try:
            if successor is not None:
                successor.abandon()
        finally:
            publisher.close(timeout)

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
        else:  # it has caught up, or waits for a leader as anyone would
            successor.abandon()

    def _neglected(self, since: float) -> set[Any]:
        # Most of the time the first batch is young, and the client is not asked.
        first = next(chain(self._sent, self._waiting), None)
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
        self._waiting.extendleft(reversed(self._sent))
        self._sent = deque()
        for batch in self._waiting:
            batch.leave()  # what the old one refuses when it is abandoned is no refusal
        before.abandon()
        log.warning(
            "the producer had stopped sending, another one goes on: expect repeats",
            records=sum(len(batch.unacknowledged) for batch in self._waiting),
        )


class _Sent:
    """A batch on its way through one producer, or several: counts its acknowledgements down.

    A callback runs on the client's IO thread, or, when the answer is there before the callback
    is added, on the publish thread: hence the lock.
    """

    def __init__(self, outcomes: Sequence[Encoded], on_completion: OnCompletion) -> None:
        self.sent_at = math.inf  # when it was handed over first
        self._outcomes = {outcome.ref: outcome for outcome in outcomes}
        self._on_completion = on_completion
        self._lock = threading.Lock()
        self._left = len(outcomes)
        self._refusals = 0
        self._publisher: Publisher | None = None
        self._unsent = deque(outcomes)
        self._futures: list[tuple[Encoded, Any]] = []

    @property
    def done(self) -> bool:
        """Whether all of it is acknowledged."""
        return self._left == 0

    @property
    def unacknowledged(self) -> list[Encoded]:
        """Publish thread: what is not acknowledged of what was sent."""
        return [outcome for outcome, future in self._futures if not future.succeeded()]

    def send_by(self, publisher: Publisher, source: Membership, clock: Clock) -> None:
        """Publish thread: hand all that is left of it to a producer.

        Raises:
            BrokerAway: call again, with this producer or another; it goes on where it was.
            Fatal: the client refuses a record.
        """
        if publisher is not self._publisher:
            self._take_up(publisher)
        self.sent_at = min(self.sent_at, clock.monotonic())
        acknowledged = partial(self._acknowledged, publisher)
        refused = partial(self._refused, publisher)
        while self._unsent:
            outcome = self._unsent[0]
            if source.current(outcome.ref):
                future = publisher.send(outcome)
                self._futures.append((outcome, future))
                self._unsent.popleft()
                future.add_callback(acknowledged).add_errback(refused)
            else:  # another worker has it now
                del self._outcomes[outcome.ref]
                self._unsent.popleft()
                acknowledged(None)

    def leave(self) -> None:
        """Publish thread: whatever its producer says from now on is ignored."""
        with self._lock:
            self._publisher = None

    def _take_up(self, publisher: Publisher) -> None:
        """Begin with another producer, which is to send what the last one left unacknowledged."""
        if self.done:
            return
        self._unsent.extendleft(reversed(self.unacknowledged))
        self._futures = []
        with self._lock:
            self._publisher, self._left = publisher, len(self._unsent)
        if self.done:
            self._complete()

    def _acknowledged(self, publisher: Publisher, _: object) -> None:
        with self._lock:
            if publisher is not self._publisher:
                return
            self._left -= 1
            last = self._left == 0
        if last:
            self._complete()

    def _refused(self, publisher: Publisher, error: Exception) -> None:
        with self._lock:
            if publisher is not self._publisher:
                return
            self._refusals += 1
            first = self._refusals == 1
        if not first:
            return
        # The client would go on with what comes after it, and a successor would publish what was
        # refused behind that.
        publisher.halt()
        self._complete(refusal(error))

    def _complete(self, error: StreamlabelError | None = None) -> None:
        if outcomes := tuple(self._outcomes.values()):
            self._on_completion(Completion(outcomes, self.sent_at, error))
