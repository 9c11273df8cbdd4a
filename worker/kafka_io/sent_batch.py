"""Sends one batch of outcomes and counts its acknowledgements, at least once.

Owns: a batch.
Thread: publish. Acknowledgements arrive on the client's IO thread, which only enqueues
a completion.
Must not import: inference, runtime.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from worker.clock import Clock
from worker.core.records import Completion, Encoded, RecordRef
from worker.errors import StreamlabelError
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.refusals import (
    RefusalResolver,
    failed_with_another,
    publish_error,
    refusal_of,
    was_halted,
)

OnCompletion = Callable[[Completion], None]


class GroupView(Protocol):
    """The part of a source that a sink uses; safe on any thread."""

    def current(self, ref: RecordRef) -> bool: ...
    def group_metadata(self) -> Any: ...


class SentBatch:
    """Counts the acknowledgements of a batch, from one producer or several.

    A callback runs on the client's IO thread. It runs on the publish thread if the response arrived
    before the callback was added, so there is a lock.

    Attributes:
        sent_at: when it was first sent, seconds of the monotonic clock.
        refused: whether one of its records was refused, or dropped unsent after another's refusal.
        failed: whether it met an error that stops the worker.
        sequence: its number in poll order.
        dead_letters: whether it consists of dead letters, else of results.
        barrier: whether later batches wait until it is acknowledged.
    """

    def __init__(
        self,
        outcomes: Sequence[Encoded],
        on_completion: OnCompletion,
        sequence: int,
        *,
        barrier: bool = False,
    ) -> None:
        self.sent_at = math.inf
        self.refused = self.failed = False
        self.dead_letters = any(outcome.reason is not None for outcome in outcomes)
        self.sequence, self.barrier = sequence, barrier
        self._outcomes = {id(outcome): outcome for outcome in outcomes}  # copies share a ref
        self._on_completion = on_completion
        self._lock = threading.Lock()
        self._left = len(outcomes)
        self._publisher: Publisher | None = None
        self._unsent = deque(outcomes)
        self._futures: list[tuple[Encoded, Any]] = []

    @property
    def done(self) -> bool:
        """True once all of it is acknowledged."""
        return self._left == 0

    @property
    def unacknowledged(self) -> list[Encoded]:
        """Publish thread: outcomes that were sent and are not acknowledged."""
        return [outcome for outcome, future in self._futures if not future.succeeded()]

    @property
    def keyless(self) -> set[bool]:
        """The kinds of its records: True without a key, False with one."""
        return {outcome.key is None for outcome in self._outcomes.values()}

    @property
    def answered(self) -> bool:
        """Publish thread: whether none of it is in flight any more."""
        return all(future.is_done for _, future in self._futures)

    def send(
        self,
        publisher: Publisher,
        source: GroupView,
        clock: Clock,
        resolver: RefusalResolver,
    ) -> None:
        """Publish thread: send the rest of the batch through a producer, or up to a refusal.

        Raises:
            BrokerAway: call again, with this producer or another; it continues where it stopped.
            Fatal: the client refuses a record.
        """
        if publisher is not self._publisher:
            self._attach(publisher)
        self.sent_at = min(self.sent_at, clock.monotonic())
        acknowledged = partial(self._acknowledged, publisher)
        refused = partial(self._refused, publisher)
        while self._unsent and not self.refused:
            outcome = self._unsent[0]
            if source.current(outcome.ref):
                future = publisher.send(outcome)
                self._futures.append((outcome, future))
                self._unsent.popleft()
                future.add_callback(acknowledged).add_errback(refused)
                if resolver.must_be_sent_alone(outcome):
                    publisher.settle(future)
            else:  # its partition has another owner now
                del self._outcomes[id(outcome)]
                self._unsent.popleft()
                acknowledged(None)

    def detach(self) -> None:
        """Publish thread: ignore its producer from now on."""
        with self._lock:
            self._publisher = None

    def take_unacknowledged(self) -> list[tuple[Encoded, Exception | None]]:
        """Publish thread, after `detach`: return outcomes without an acknowledgement, and errors.

        The acknowledged ones complete now; the batch completes nothing after that.
        """
        if self.done:
            return []
        rest = [
            (outcome, future.exception)
            for outcome, future in self._futures
            if not future.succeeded()
        ]
        rest += [(outcome, None) for outcome in self._unsent]
        for outcome, _ in rest:
            del self._outcomes[id(outcome)]
        self._complete()
        return rest

    def _attach(self, publisher: Publisher) -> None:
        """Continue with another producer, which sends what the last one left unacknowledged."""
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
            if publisher.halted and was_halted(error):
                return  # it stays without an acknowledgement
            if failed_with_another(error) or refusal_of(error):
                self.refused = True  # the client sends nothing more; the sink continues from there
                return
            failed_before, self.failed = self.failed, True
        if failed_before:
            return
        self._complete(publish_error(error))
        # The client would send later records, and a successor would publish the failed ones after
        # them.
        publisher.halt()

    def _complete(self, error: StreamlabelError | None = None) -> None:
        if outcomes := tuple(self._outcomes.values()):
            self._on_completion(Completion(outcomes, self.sent_at, error))
