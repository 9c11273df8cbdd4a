"""A batch of outcomes on its way to the broker, at least once.

The publish thread owns it; acknowledgements arrive on the client's IO thread, where a completion is
put into a queue and nothing else happens. Imports no inference and no runtime.
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
from worker.kafka_io.publisher import Publisher, refusal
from worker.kafka_io.refusals import Sieve, refusal_of, spared

OnCompletion = Callable[[Completion], None]


class GroupView(Protocol):
    """The part of a source that a sink uses; safe on any thread."""

    def current(self, ref: RecordRef) -> bool: ...
    def group_metadata(self) -> Any: ...


class SentBatch:
    """Counts its acknowledgements down, through one producer or several.

    A callback runs on the client's IO thread, or, when the answer is there before the callback
    is added, on the publish thread: hence the lock.

    Attributes:
        sent_at: when it was handed over first, seconds of the monotonic clock.
        refused: whether a record of it was refused, or dropped unsent after the refusal of another.
        failed: whether it met an error that stops the worker.
        place: in poll order; a batch has one place for its results and one for its dead letters.
        letters: whether it is of dead letters, else of results.
        proof: whether what comes after it waits until it is acknowledged.
    """

    def __init__(
        self,
        outcomes: Sequence[Encoded],
        on_completion: OnCompletion,
        place: int,
        *,
        proof: bool = False,
    ) -> None:
        self.sent_at = math.inf
        self.refused = self.failed = False
        self.letters = any(outcome.reason is not None for outcome in outcomes)
        self.place, self.proof = place, proof
        self._outcomes = {outcome.ref: outcome for outcome in outcomes}
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
        """Publish thread: what is not acknowledged of what was sent."""
        return [outcome for outcome, future in self._futures if not future.succeeded()]

    @property
    def keyless(self) -> set[bool]:
        """The kinds of its records: True without a key, False with one."""
        return {one.key is None for one in self._outcomes.values()}

    @property
    def answered(self) -> bool:
        """Publish thread: whether nothing of it is on the wire any more."""
        return all(future.is_done for _, future in self._futures)

    def send_by(self, publisher: Publisher, source: GroupView, clock: Clock, sieve: Sieve) -> None:
        """Publish thread: hand all that is left of it to a producer, or up to a refusal.

        Raises:
            BrokerAway: call again, with this producer or another; it goes on where it was.
            Fatal: the client refuses a record.
        """
        if publisher is not self._publisher:
            self._take_up(publisher)
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
                if sieve.alone(outcome):
                    publisher.settle(future)
            else:  # another worker has it now
                del self._outcomes[outcome.ref]
                self._unsent.popleft()
                acknowledged(None)

    def leave(self) -> None:
        """Publish thread: ignore its producer from now on."""
        with self._lock:
            self._publisher = None

    def take_back(self) -> list[tuple[Encoded, Exception | None]]:
        """Publish thread, when it has left its producer: what is left, and what was said of it.

        Its acknowledged records are complete now; the batch completes nothing after that.
        """
        if self.done:
            return []
        left = [(one, future.exception) for one, future in self._futures if not future.succeeded()]
        left += [(one, None) for one in self._unsent]
        for one, _ in left:
            del self._outcomes[one.ref]
        self._complete()
        return left

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
            if spared(error) or refusal_of(error):
                self.refused = True  # the client sends nothing more; the sink goes on from there
                return
            before, self.failed = self.failed, True
        if before:
            return
        # The client would go on with what comes after it, and a successor would publish what was
        # refused behind that.
        publisher.halt()
        self._complete(refusal(error))

    def _complete(self, error: StreamlabelError | None = None) -> None:
        if outcomes := tuple(self._outcomes.values()):
            self._on_completion(Completion(outcomes, self.sent_at, error))
