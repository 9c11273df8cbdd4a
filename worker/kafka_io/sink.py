"""Outcomes out, at least once; and what every sink does.

The publish thread owns a sink; `check` is the poll thread's. Acknowledgements arrive on the client's IO thread; there a
completion is put into a queue, and nothing else happens. Imports no inference and no runtime.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from worker.clock import Clock
from worker.core.records import Completion, Encoded, RecordRef
from worker.kafka_io.publisher import Publisher, refusal

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

    Args:
        publisher: the producer.
        on_completion: called on the client's IO thread; must only enqueue.
        source: knows which assignments still stand; what was polled under others is not
            published, for another worker has it now.
        clock: stamps the hand-over.
    """

    commits_offsets = False

    def __init__(
        self, publisher: Publisher, on_completion: OnCompletion, source: Membership, clock: Clock
    ) -> None:
        self._publisher, self._on_completion = publisher, on_completion
        self._source, self._clock = source, clock
        self._waiting: Sequence[Encoded] = ()

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Hand a batch to the client; one completion follows when all of it is acknowledged.

        Raises:
            BrokerAway: nothing was handed over yet; call `advance`.
            Fatal: the topic is gone or forbidden, or the client refuses a record.
        """
        self._waiting = outcomes
        self.advance()

    def advance(self) -> None:
        """Hand over what could not be handed over before."""
        if not self._waiting:
            return
        self._publisher.await_metadata()
        current = tuple(o for o in self._waiting if self._source.current(o.ref))
        self._waiting = ()
        pending = _Pending(current, self._clock.monotonic(), self._on_completion, self._publisher)
        for outcome in current:
            sent = self._publisher.send(outcome)
            sent.add_callback(pending.acknowledged).add_errback(pending.refused)

    def check(self) -> None:
        """Raises TopicMissing where a topic was deleted."""
        self._publisher.check()

    def hurry(self) -> None:
        """Nothing to do: the client waits for 5 ms at most."""

    def close(self, timeout: float) -> None:
        """Wait for acknowledgements up to `timeout` seconds, then drop what is left."""
        self._publisher.close(timeout)


class _Pending:
    """Counts a batch's acknowledgements down.

    A callback runs on the client's IO thread, or, when the answer is there before the callback
    is added, on the publish thread: hence the lock.
    """

    def __init__(
        self,
        outcomes: tuple[Encoded, ...],
        sent_at: float,
        on_completion: OnCompletion,
        publisher: Publisher,
    ) -> None:
        self._outcomes = outcomes
        self._sent_at = sent_at
        self._left = len(outcomes)
        self._told = False
        self._on_completion = on_completion
        self._publisher = publisher
        self._lock = threading.Lock()

    def acknowledged(self, _: object) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._on_completion(Completion(self._outcomes, self._sent_at))

    def refused(self, error: Exception) -> None:
        with self._lock:
            first, self._told = not self._told, True
        if not first:
            return
        # The client would go on with what comes after it, and a successor would publish what was
        # refused behind that.
        self._publisher.halt()
        self._on_completion(Completion(self._outcomes, self._sent_at, refusal(error)))
