"""A model of Kafka's brokers: logs, idempotent and transactional producers.

It keeps the rules that the worker's promises rest on, and leaves out the network. A request has an
effect or an error; whether its answer arrives is the caller's business (`World.request`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import errors

from tests.simulation.group import Group
from worker.core.records import Partition

Offsets = Mapping[Partition, int]


@dataclass(slots=True)
class Entry:
    """One offset of a log.

    Attributes:
        payload: the record; None for the marker that ends a transaction.
        transaction: number of the transaction that it belongs to; None outside of any.
    """

    payload: Any
    transaction: int | None = None


@dataclass(slots=True)
class Transaction:
    """The open transaction of a transactional id.

    Attributes:
        epoch: of the producer that may write; an older one is fenced.
        number: of the open transaction; None without one.
        offsets: of the group, which the transaction will commit.
        partitions: those with records of the transaction.
        began_at: seconds of the world's clock.
    """

    epoch: int = -1
    number: int | None = None
    offsets: dict[Partition, int] = field(default_factory=dict)
    partitions: set[Partition] = field(default_factory=set)
    began_at: float = 0.0


class Broker:
    """Logs, producers and the group.

    Args:
        group: the consumer group of the workers.
        timeout: seconds after which an open transaction is aborted.

    Attributes:
        ended: numbers of the transactions that ended, and whether they were committed.
        log_start: first offset of an input partition that retention has left.
        leaderless: partitions that nothing can be written to now.
        on_commit: called with the records and the offsets of each transaction that commits, and
            with the group's offsets before.
    """

    def __init__(self, group: Group, timeout: float) -> None:
        self.group, self._timeout = group, timeout
        self.logs: dict[Partition, list[Entry]] = {}
        self.log_start: dict[Partition, int] = {}
        self.leaderless: set[Partition] = set()
        self.on_commit: Callable[[list[Any], Offsets, Offsets], None] = lambda *_: None
        self.ended: dict[int, bool] = {}
        self._sequences: dict[tuple[int, Partition], int] = {}
        self._transactions: dict[str, Transaction] = {}
        self._numbers, self._producers = itertools.count(1), itertools.count(1)

    def new_producer(self) -> int:
        """Return the id of an idempotent producer."""
        return next(self._producers)

    def end(self, partition: Partition) -> int:
        """Return the offset that the next record gets."""
        return len(self.logs.get(partition, ()))

    # -- producers -----------------------------------------------------------------------------

    def append(self, partition: Partition, payload: Any, transaction: int | None = None) -> None:
        """Append a record."""
        self.logs.setdefault(partition, []).append(Entry(payload, transaction))

    def produce(self, producer: int, partition: Partition, sequence: int, payload: Any) -> None:
        """Append an idempotent producer's record, unless it is stored already.

        Raises:
            OutOfOrderSequenceNumberError: a record before it is not stored.
        """
        last = self._sequences.get((producer, partition), -1)
        if sequence > last + 1:
            raise errors.OutOfOrderSequenceNumberError
        if sequence == last + 1:
            self._sequences[producer, partition] = sequence
            self.append(partition, payload)

    def init(self, name: str) -> int:
        """Fence earlier producers of a transactional id, abort what is open; return the epoch."""
        transaction = self._transactions.setdefault(name, Transaction())
        if transaction.number is not None:
            self._end(transaction, committed=False)
        transaction.epoch += 1
        return transaction.epoch

    def produce_in_transaction(
        self, name: str, epoch: int, partition: Partition, payload: Any, now: float
    ) -> None:
        """Append a record to the open transaction, which this begins if there is none.

        Raises:
            ProducerFencedError: another producer has the transactional id.
        """
        transaction = self._begun(name, epoch, now)
        transaction.partitions.add(partition)
        self.append(partition, payload, transaction.number)

    def add_offsets(
        self,
        name: str,
        epoch: int,
        offsets: Mapping[Partition, int],
        member: tuple[str, int],
        now: float,
    ) -> None:
        """Add the group's offsets to the transaction.

        Args:
            name: the transactional id.
            epoch: of the producer.
            offsets: by partition.
            member: id and generation, which the group checks.
            now: seconds of the world's clock.

        Raises:
            ProducerFencedError: another producer has the transactional id.
            CommitFailedError: the group has removed the member, or has another generation.
        """
        transaction = self._begun(name, epoch, now)
        self.group.check(*member)
        transaction.offsets.update(offsets)
        self.group.expect(transaction.number, offsets)

    def end_transaction(self, name: str, epoch: int, *, committed: bool) -> None:
        """Commit or abort.

        Raises:
            ProducerFencedError: another producer has the transactional id.
        """
        transaction = self._current(name, epoch)
        if transaction.number is not None:
            self._end(transaction, committed=committed)

    def expire_transactions(self, now: float) -> None:
        """Abort transactions that are open for too long, and fence their producers."""
        for transaction in self._transactions.values():
            open_for = now - transaction.began_at
            if transaction.number is not None and open_for >= self._timeout:
                self._end(transaction, committed=False)
                transaction.epoch += 1

    def _current(self, name: str, epoch: int) -> Transaction:
        transaction = self._transactions[name]
        if transaction.epoch != epoch:
            raise errors.ProducerFencedError
        return transaction

    def _begun(self, name: str, epoch: int, now: float) -> Transaction:
        transaction = self._current(name, epoch)
        if transaction.number is None:
            transaction.number, transaction.began_at = next(self._numbers), now
        return transaction

    def _end(self, transaction: Transaction, *, committed: bool) -> None:
        number = transaction.number
        if number is None:
            raise ValueError("no transaction is open")
        self.ended[number] = committed
        if committed:
            records = [
                entry.payload
                for partition in transaction.partitions
                for entry in self.logs[partition]
                if entry.transaction == number
            ]
            self.on_commit(records, transaction.offsets, dict(self.group.offsets))
        for partition in sorted(transaction.partitions):
            self.append(partition, None, number)
        self.group.settle(number, transaction.offsets if committed else {})
        transaction.number, transaction.offsets, transaction.partitions = None, {}, set()

    # -- readers -------------------------------------------------------------------------------

    def committed(self, partition: Partition) -> Iterator[tuple[int, Any]]:
        """Yield offset and payload of each record that `read_committed` shows now, in order."""
        for offset, entry in enumerate(self.logs.get(partition, ())):
            if entry.transaction is not None and entry.transaction not in self.ended:
                return  # the last stable offset
            if entry.payload is not None and self.ended.get(entry.transaction or 0, True):
                yield offset, entry.payload
