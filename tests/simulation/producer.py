"""The producer's side of the model: what `Publisher` is in a real worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kafka import errors
from kafka.future import Future

from tests.simulation.broker import Broker
from tests.simulation.network import Network
from worker.core.records import Encoded, Partition
from worker.errors import BrokerAway
from worker.kafka_io.refusals import NotSent
from worker.kafka_io.translation import translate

_MOST = 4  # records of a batch
_STEP = 0.004  # seconds of a request


class SimulatedProducer:
    """A client's producer: it sends what it has in batches, one at a time for each partition.

    Args:
        broker, network: what it talks to.
        partitions: of each output topic.
        name: a transactional id; None for an idempotent producer.
        woken: called when there is something to send.

    Attributes:
        forgets: whether its sender has stopped without a word.
        halted: whether it drops what has no acknowledgement.
        last_error: the first error of a transaction.
    """

    def __init__(
        self,
        broker: Broker,
        network: Network,
        partitions: int,
        name: str | None,
        woken: Callable[[], None],
    ) -> None:
        self._woken = woken
        self._broker, self._network, self._world = broker, network, network.world
        self._partitions, self._name = partitions, name
        self._id, self._epoch = broker.new_producer(), -1
        self._waiting: dict[Partition, deque[tuple[Encoded, Any, int]]] = {}
        self._sequences: dict[Partition, int] = {}
        self._touched: dict[Partition, float] = {}
        self._broken = False
        self.forgets = self.halted = False
        self.last_error: Exception | None = None

    # -- the client's own thread ------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Return whether the sender has something to send."""
        return not self._broken and not self.forgets and bool(self._ready())

    def _ready(self) -> list[Partition]:
        away = self._broker.leaderless
        return sorted(p for p, batch in self._waiting.items() if batch and p not in away)

    def pump(self) -> None:
        """Send one batch of one partition."""
        ready = self._ready()
        if not ready or self._broken or self.forgets:
            return
        partition = ready[int(self._world.random.random() * len(ready))]
        batch = [self._waiting[partition][n] for n in range(min(_MOST, self._size(partition)))]
        self._touched[partition] = self._world.now
        if bad := [one for one, _, _ in batch if is_refused(one)]:
            self._refuse(partition, batch, bad)
            return
        try:
            self._network.request(lambda: self._store(partition, batch))
        except errors.ProducerFencedError as error:
            self._fail(error)
        except errors.KafkaError:
            return  # the client tries again, and the broker knows what it has stored already
        else:
            for _, future, _ in batch:
                self._waiting[partition].popleft()
                future.success(None)

    def _size(self, partition: Partition) -> int:
        return len(self._waiting[partition])

    def _store(self, partition: Partition, batch: list[tuple[Encoded, Any, int]]) -> None:
        for outcome, _, sequence in batch:
            if self._name is None:
                self._broker.produce(self._id, partition, sequence, outcome)
            elif sequence > self._stored.get(partition, -1):
                self._broker.produce_in_transaction(
                    self._name, self._epoch, partition, outcome, self._world.now
                )
                self._stored[partition] = sequence

    def _refuse(
        self, partition: Partition, batch: list[tuple[Encoded, Any, int]], bad: list[Encoded]
    ) -> None:
        """Refuse a batch for one of its records; the client then sends nothing more."""
        self._world.tell(f"a record of {partition} is refused")
        for outcome, future, _ in batch:
            self._waiting[partition].popleft()
            first = outcome is bad[0]
            future.failure(
                errors.InvalidRecordError("no such schema") if first else errors.KafkaError("mate")
            )
        self._fail(NotSent("another record was refused"), errors.InvalidRecordError("refused"))

    def _fail(self, error: Exception, last: Exception | None = None) -> None:
        self._broken = True
        self.last_error = self.last_error or last or error
        for batch in self._waiting.values():
            while batch:
                batch.popleft()[1].failure(error)

    # -- the publish thread ------------------------------------------------------------------------

    def await_metadata(self) -> None:
        self._world.wait(0)
        if not self._network.reaches():
            raise BrokerAway("no broker is reached")

    def send(self, outcome: Encoded) -> Any:
        future = Future()
        if self._broken:
            future.failure(NotSent("another record was refused"))
            return future
        partition = Partition(outcome.topic, outcome.source.partition % self._partitions)
        sequence = self._sequences.get(partition, -1) + 1
        self._sequences[partition] = sequence
        self._waiting.setdefault(partition, deque()).append((outcome, future, sequence))
        self._touched.setdefault(partition, self._world.now)
        self._woken()
        return future

    def settle(self, future: Any) -> None:
        self._world.wait(1.0, lambda: bool(future.is_done))

    def has_leader(self, partition: Partition) -> bool:
        return self._network.reaches() and partition not in self._broker.leaderless

    def stalled_partitions(self, since: float) -> set[Any]:
        return {p for p, batch in self._waiting.items() if batch and self._touched[p] < since}

    def check(self) -> None:
        """No topic is deleted here."""

    def halt(self) -> None:
        """Send nothing more; a request that is on its way may still be stored."""
        self.halted = True
        if self._broken:
            return
        if self._world.random.random() < 0.3 and not self.forgets:
            self._late_request()
        self._fail(errors.IllegalStateError("the producer is closed"))

    def _late_request(self) -> None:
        for partition, batch in self._waiting.items():
            if batch and not any(is_refused(one) for one, _, _ in list(batch)[:_MOST]):
                late = list(batch)[:_MOST]
                self._world.spawn(
                    "late request", self, lambda p=partition, b=late: self._arrive_late(p, b)
                )
                return

    def _arrive_late(self, partition: Partition, batch: list[tuple[Encoded, Any, int]]) -> None:
        self._world.wait(self._world.random.random())
        try:
            self._store(partition, batch)
        except errors.KafkaError:
            return

    abandon = halt

    def close(self, timeout: float) -> None:
        self._world.wait(timeout, lambda: not any(self._waiting.values()) or self._broken)
        left = any(self._waiting.values())
        self.halt()
        if left:
            raise BrokerAway("records were dropped")

    # -- transactions ------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        self._world.wait(_STEP)
        name = self._name or ""
        self._epoch = self._network.request(lambda: self._broker.init(name))
        self._stored: dict[Partition, int] = {}

    def begin(self) -> None:
        if self._broken:
            raise self.last_error or errors.KafkaError("closed")
        self._stored = {}

    def commit(self, offsets: Mapping[Any, Any], membership: Any, sent: Iterable[Any]) -> None:
        name, epoch = self._name or "", self._epoch
        plain = {Partition(*tp): one.offset for tp, one in offsets.items()}
        self._world.wait(_STEP)
        self._step(
            lambda: self._broker.add_offsets(name, epoch, plain, membership, self._world.now)
        )
        flushed = lambda: self._broken or not any(self._waiting.values())  # noqa: E731
        self._world.wait(10.0, flushed)
        if self._broken:
            raise self.last_error or errors.KafkaError("closed")
        if not flushed():
            raise errors.KafkaTimeoutError("a step of a transaction was not answered in time")
        self._world.wait(_STEP)
        self._step(lambda: self._broker.end_transaction(name, epoch, committed=True))
        for future in sent:
            if not future.succeeded():
                raise future.exception or errors.KafkaError("a record was not acknowledged")

    def _step(self, effect: Any) -> None:
        """Take a step of a transaction; the client repeats those that are refused for now."""
        for _ in range(5):
            try:
                self._network.request(effect)
            except errors.KafkaTimeoutError:  # nobody will know whether it took effect
                raise
            except errors.RetriableError:
                self._world.wait(_STEP)
            except errors.KafkaError as error:
                self.last_error = self.last_error or error
                raise
            else:
                return
        raise errors.KafkaTimeoutError("a step of a transaction was not answered in time")

    def abort(self, timeout: float) -> None:
        name = self._name or ""
        try:
            self._network.request(
                lambda: self._broker.end_transaction(name, self._epoch, committed=False)
            )
        except errors.KafkaError as error:
            self._world.tell(f"the abort failed: {translate(error)}")


def is_refused(outcome: Encoded) -> bool:
    """Return whether the output topic refuses this result."""
    return outcome.reason is None and outcome.key == b"refuse"
