"""A worker in simulated time: independent arrivals, the stages, and a policy of batching.

For tests of `worker.core.pace`. The poll thread checks the demand at each arrival, and otherwise
every hundredth of a second, as in `worker.runtime.service`. Tokenise and infer have an inbox of one
batch each, and publishing takes no time.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.records import item
from worker.core.batcher import MicroBatcher
from worker.core.pace import Demand, Pace
from worker.core.records import MicroBatch

LOOK_EVERY = 0.01  # seconds
TOKENISE = 0.000002  # seconds a token

Policy = Callable[["Worker"], Demand]


@dataclass(frozen=True)
class Model:
    """The cost of a micro-batch in seconds: a fixed part, and a part for each token."""

    fixed: float
    token: float
    max_records: int = 128
    max_tokens: int = 8_192

    def seconds(self, tokens: int) -> float:
        return self.fixed + self.token * tokens

    def capacity(self, tokens: float) -> float:
        """Return how many texts of this size the model labels a second, in full micro-batches."""
        return self.max_records / self.seconds(round(self.max_records * tokens))


@dataclass
class Stage:
    """A stage with one batch at work and one in the inbox; `ready` is a result that waits."""

    inbox: deque[MicroBatch] = field(default_factory=deque)
    busy: bool = False
    ready: MicroBatch | None = None


class Worker:
    """Processes the arrivals, (seconds, tokens), in order.

    Attributes:
        latencies: latency of each record, in the order of arrival.
        sizes: number of records in each micro-batch.
        worked: seconds that the model was busy.
    """

    def __init__(self, model: Model, policy: Policy, goal: float | None = None) -> None:
        self.batcher = MicroBatcher(model.max_records, model.max_tokens)
        self.pace = Pace(goal)
        self.latencies: list[float] = []
        self.sizes: list[int] = []
        self.worked = self.now = 0.0
        self._model, self._policy = model, policy
        self._tokenise, self._infer = Stage(), Stage()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.arrived: deque[float] = deque()
        self._looks = False
        self._number = 0

    def run(self, arrivals: list[tuple[float, int]]) -> Worker:
        for at, tokens in arrivals:
            self._after(at, lambda tokens=tokens: self._arrive(tokens))
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
        assert len(self.latencies) == len(arrivals)
        return self

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, event))

    # -- the poll thread ---------------------------------------------------------------------------

    def _arrive(self, tokens: int) -> None:
        self.arrived.append(self.now)
        self.batcher.add(item(), tokens, self.now)
        self._look()

    def _look(self) -> None:
        while not self._tokenise.inbox:
            demand = self._policy(self)
            trigger = self.batcher.due(self.now, demand)
            if trigger is None:
                break
            batch = self.batcher.take(trigger, self.now, demand.most_tokens)
            self.pace.handed()
            self.sizes.append(len(batch))
            self._tokenise.inbox.append(batch)
            self._step()
        if len(self.batcher) and not self._looks:
            self._looks = True
            wait = self._policy(self).at - self.now
            self._after(wait if 0 < wait < LOOK_EVERY else LOOK_EVERY, self._look_again)

    def _look_again(self) -> None:
        self._looks = False
        self._look()

    # -- the stages --------------------------------------------------------------------------------

    def _step(self) -> None:
        if self._tokenise.ready and not self._infer.inbox:
            self._infer.inbox.append(self._tokenise.ready)
            self._tokenise.ready, self._tokenise.busy = None, False
        if self._infer.inbox and not self._infer.busy:
            self._begin(self._infer.inbox.popleft())
            self._step()
        if self._tokenise.inbox and not self._tokenise.busy:
            self._tokenise.busy = True
            batch = self._tokenise.inbox.popleft()
            self._after(batch.tokens * TOKENISE, lambda: self._tokenised(batch))

    def _tokenised(self, batch: MicroBatch) -> None:
        self.pace.tokenised(batch.tokens, batch.tokens * TOKENISE)
        self._tokenise.ready = batch
        self._step()

    def _begin(self, batch: MicroBatch) -> None:
        self._infer.busy = True
        self.pace.began(batch.tokens, self.now)
        seconds = self._model.seconds(batch.tokens)
        self.worked += seconds
        self._after(seconds, lambda: self._end(batch))

    def _end(self, batch: MicroBatch) -> None:
        self.pace.ended(self.now)
        self.latencies += [self.now - self.arrived.popleft() for _ in batch.entries]
        self._infer.busy = False
        self._step()


def adaptive(worker: Worker) -> Demand:
    return worker.pace.demand(worker.batcher.tokens)


def fixed(delay: float) -> Policy:
    """Return a policy with a fixed delay for each micro-batch, even if the model is idle."""

    def demand(worker: Worker) -> Demand:
        waiting = len(worker.batcher)
        return Demand(worker.arrived[-waiting] + delay if waiting else 0.0)

    return demand


def arrivals(rate: float, number: int, seed: int = 0) -> list[tuple[float, int]]:
    """Return independent arrivals (Poisson), of about 25 tokens, some of over a hundred."""
    generator, now, result = random.Random(seed), 0.0, []
    for _ in range(number):
        now += generator.expovariate(rate)
        result.append((now, min(118, max(4, round(generator.lognormvariate(3.0, 0.6))))))
    return result
