"""Wraps one Kafka producer, from its options to its end.

Owns: a producer.
Thread: publish, except for `check`, which is the poll thread's; the client's sender thread runs
behind it.
Must not import: inference, runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from worker.clock import Clock
from worker.core.records import Encoded
from worker.core.topic_limits import LARGEST_RECORD
from worker.errors import BrokerAway, StreamlabelError
from worker.kafka_io import internals
from worker.kafka_io.connection import connect
from worker.kafka_io.null_headers import replace_nulls
from worker.kafka_io.refusals import fail_only_unsent_batches, publish_error
from worker.kafka_io.topic_watch import PATIENCE, SeenTopics, TopicWatch
from worker.kafka_io.translation import translate
from worker.logs import get_logger
from worker.settings import Settings

log = get_logger(__name__)

# An idempotent producer keeps the order and sends nothing twice for as long as it retries. If it
# gave up, a long outage would only become a restart. The largest 32-bit number of ms is 24 days.
_DELIVERY_TIMEOUT_MS = 2**31 - 1
_MAX_BATCH_BYTES = 262_144  # a larger batch would be refused, split and sent again
# A caller that waits can't be cancelled, and asks again.
_METADATA_TIMEOUT = 2.0  # seconds
_ABANDON_TIMEOUT = 0.1  # seconds to flush a producer that is given up
_JOIN_TIMEOUT = 1.0  # seconds for its thread to end
_TRANSACTION_RETRY_MS = 20  # the Java client's, for the first partition of a transaction
# The broker decides on each record that the encoder passes: the client's own limit would be that of
# a request.
_NO_SIZE_LIMIT = 2 * LARGEST_RECORD
_SURELY_SMALL = 1_000_000  # bytes of a value; a record with it needs no check


class Publisher:
    """A producer that sends outcomes to the partitions where they belong.

    Args:
        settings: cluster and compression.
        partitions: number of partitions of each output topic; it may grow. Topics may be added and
            removed.
        max_request: bytes of the largest request; a larger record is sent alone.
        clock: measures how long a topic is missing.
        transactional_id: makes the producer transactional; `begin_epoch` fences its predecessors.
        seen: the topics as its predecessor saw them; None for the first producer.

    Attributes:
        halted: whether it ends, and drops the records that have no acknowledgement.

    Raises:
        BrokerAway: no broker answers.
        Fatal: wrong credentials and the like.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: Mapping[str, int],
        max_request: int,
        clock: Clock,
        transactional_id: str | None = None,
        seen: SeenTopics | None = None,
    ) -> None:
        self.halted = False
        self._topics = partitions
        self._partitions = dict(partitions)  # as this producer uses them
        self._listed = dict(partitions)
        self._transaction_timeout = settings.transaction_timeout
        self._request_timeout = settings.kafka.request_timeout
        options = _options(settings, max_request)
        if transactional_id:
            options["transactional_id"] = transactional_id
            options["transaction_timeout_ms"] = int(settings.transaction_timeout * 1000)
            # The broker refuses a new transaction, for now, while it still writes the end of the
            # last one: this wait is part of every result's latency.
            options["retry_backoff_ms"] = _TRANSACTION_RETRY_MS
        self._producer = connect(KafkaProducer, settings.kafka, **options)
        # Only `send` reads this value; the sender has a copy of its own.
        self._producer.config["max_request_size"] = _NO_SIZE_LIMIT
        fail_only_unsent_batches(self._producer)
        self._metadata = internals.producer_metadata(self._producer)
        self._sender = internals.sender_of(self._producer)
        self._topic_watch = TopicWatch(self._metadata, partitions, clock, _patience(settings), seen)

    def check(self) -> None:
        """Return while every topic is the one it was; always call it from the same thread.

        The client would keep what it can't send, and ask for the topic without end.

        Raises:
            TopicMissing: a topic was deleted.
        """
        self._topic_watch.check()

    def await_metadata(self) -> None:
        """Wait for the metadata of every topic, which `send` does not.

        Partitions that were added to a topic are used from this call on, and a topic that was
        removed is no longer asked for.

        Raises:
            BrokerAway: the metadata are not there yet, or lack a partition.
            Fatal: a topic is deleted or forbidden.
        """
        if removed := self._partitions.keys() - self._topics.keys():
            self._forget(removed - self._unacknowledged_topics())
        for topic, listed in tuple(self._topics.items()):
            if listed < self._listed.get(topic, listed):  # removed, and found again
                self._partitions[topic] = listed
            self._listed[topic] = listed
            known, number = self._number(topic), self._await_partitions(topic)
            if number < known:
                raise self._unnamed(topic, known - 1)
            self._topic_watch.named(topic)
            if number > known:
                self._use_added_partitions(topic, number)

    def _forget(self, topics: Iterable[str]) -> None:
        for topic in topics:
            internals.forget_topic(self._metadata, topic)
            self._topic_watch.named(topic)
            del self._partitions[topic]

    def _await_partitions(self, topic: str) -> int:
        try:
            return internals.await_partitions(self._producer, topic, _METADATA_TIMEOUT)
        except (KafkaError, RuntimeError) as error:  # the latter if its connections are closed
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> StreamlabelError:
        return BrokerAway("the producer has ended") if self.halted else translate(error)

    def _unnamed(self, topic: str, partition: int) -> StreamlabelError:
        with contextlib.suppress(RuntimeError):  # its connections are closed
            internals.request_metadata(self._producer)
        return self._topic_watch.unnamed(topic, partition)

    def _unacknowledged_topics(self) -> set[str]:
        batches = internals.unacknowledged_batches(self._producer)
        return {batch.topic_partition.topic for batch in batches}

    def _use_added_partitions(self, topic: str, number: int) -> None:
        """Spread outcomes over all partitions that the topic has now.

        With more of them, the outcomes of some input partitions go elsewhere: those of input
        partition 1 went to 0 while there was one partition, and go to 1 of three. Everything that
        was sent to the old partition is acknowledged before the first record goes to the new one,
        so no later outcome arrives before an earlier one.

        Keeping the old number for the life of the process would only postpone this to the next
        start or rebalance. Until then the workers of a group would not agree on the partitions.
        """
        if topic in self._unacknowledged_topics():
            raise BrokerAway(
                f"topic {topic!r} has {number} partitions now: records sent to its "
                f"{self._partitions[topic]} old ones must be acknowledged first"
            )
        log.info(
            "an output topic has more partitions, using all of them",
            topic=topic,
            before=self._partitions[topic],
            now=number,
        )
        self._partitions[topic] = number

    def send(self, outcome: Encoded) -> Any:
        """Enqueue one record; wait only for a topic that the client has not asked for.

        Returns:
            The client's future, which has the acknowledgement.

        Raises:
            BrokerAway: the metadata name its partition no more; call again.
            Fatal: the client refuses the record, or its partition is gone.
        """
        try:
            return self._enqueue(outcome)
        except (KafkaError, ValueError) as error:
            cause = self._translated(error)
            if isinstance(cause, BrokerAway):
                raise cause from error
            raise publish_error(error, outcome) from error

    def _enqueue(self, outcome: Encoded) -> Any:
        topic = outcome.topic
        if not internals.is_requested(self._metadata, topic):
            self._request(topic)
        number = self.partition_of(outcome)
        if number not in (self._metadata.partitions_for_topic(topic) or ()):
            raise self._unnamed(topic, number)
        headers = replace_nulls(outcome.headers)
        if len(outcome.value or b"") <= _SURELY_SMALL:
            partition = TopicPartition(topic, number)
            fields = (outcome.timestamp_ms, outcome.key, outcome.value, headers)
            return internals.append_record(self._producer, partition, *fields)
        # Raises an error that names what is wrong with the record.
        return self._producer.send(
            topic,
            value=outcome.value,
            key=outcome.key,
            headers=headers,
            partition=number,
            timestamp_ms=outcome.timestamp_ms,
        )

    def _request(self, topic: str) -> None:
        """Wait for a topic that was just added, or that was removed while a record was left."""
        try:
            number = self._await_partitions(topic)
        except BrokerAway as error:
            raise self._unnamed(topic, 0) from error
        self._partitions.setdefault(topic, self._topics.get(topic, number))

    def settle(self, future: Any) -> None:
        """Wait until one record is acknowledged or refused, for a request's timeout at most."""
        self._sender.wakeup()
        with contextlib.suppress(KafkaError):
            future.get(timeout=self._request_timeout)

    def partition_of(self, outcome: Encoded) -> int:
        """Return the partition for an outcome.

        It depends on the input partition and not on the key, so that all outcomes of an input
        partition stay in order.
        """
        return outcome.source.partition % self._number(outcome.topic)

    def _number(self, topic: str) -> int:
        # A topic may be added while a transaction is open.
        return self._partitions.setdefault(topic, self._topics.get(topic, 1))

    def has_leader(self, partition: TopicPartition) -> bool:
        """Return whether the metadata name a leader for the partition, or nothing is sent to it."""
        if partition.topic not in self._topics:
            return True
        return internals.has_leader(self._metadata, partition)

    def stalled_partitions(self, since: float) -> set[TopicPartition]:
        """Return the partitions whose oldest batch the client has not touched since then.

        Later batches wait for the oldest one, and are not considered.

        Args:
            since: monotonic seconds.
        """
        oldest: dict[TopicPartition, tuple[float, float]] = {}  # created at, last touched at
        for batch in internals.unacknowledged_batches(self._producer):
            touched = max(batch.created, batch.last_attempt, batch.drained or 0.0)
            before = oldest.get(batch.topic_partition, (batch.created, 0.0))
            if batch.created <= before[0]:  # the halves of a split batch have one age
                last = touched if batch.created < before[0] else max(touched, before[1])
                oldest[batch.topic_partition] = (batch.created, last)
        return {partition for partition, (_, touched) in oldest.items() if touched < since}

    # -- transactions --------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Fence earlier producers with this transactional id, and end their transaction.

        Raises KafkaError.
        """
        self._producer.init_transactions()

    def begin(self) -> None:
        """Open a transaction. Raises KafkaError."""
        self._producer.begin_transaction()

    def commit(self, offsets: Mapping[Any, Any], membership: Any, sent: Iterable[Any]) -> None:
        """Commit what was `sent` (its futures) and these offsets.

        The client's result is not enough. When a broker has lost a producer's state (a leader that
        was killed), it refuses a batch. The client then begins a new epoch, which aborts the
        transaction, and has nothing left to commit: `commit_transaction` returns as if it had
        succeeded. Only the batch's own future has the failure.

        Raises:
            KafkaError: the outcome of the commit is unknown.
        """
        transactions = internals.transactions_of(self._producer)
        self._await(transactions.send_offsets_to_transaction(offsets, membership))
        self._await(transactions.begin_commit())
        for future in sent:
            if not future.succeeded():
                raise future.exception or KafkaError("a record was not acknowledged")

    def _await(self, step: Any, timeout: float | None = None) -> None:
        """Wait for a step of a transaction, with a bound that the client's own methods lack.

        They may wait without end: the client forgets a step that is under way when it begins a new
        epoch. After the transaction's timeout the broker has aborted it anyway.
        """
        self._sender.wakeup()
        if not step.wait(timeout_ms=(timeout or self._transaction_timeout) * 1000):
            raise KafkaTimeoutError("a step of a transaction was not answered in time")

    @property
    def last_error(self) -> Exception | None:
        """The first error of a transaction; later exceptions only quote it."""
        error: Exception | None = internals.transactions_of(self._producer).last_error
        return error

    def abort(self, timeout: float) -> None:
        """Abort the open transaction, so that readers need not wait for its timeout."""
        with contextlib.suppress(KafkaError):
            self._await(internals.transactions_of(self._producer).begin_abort(), timeout)

    # -- the end -------------------------------------------------------------------------------

    def halt(self) -> None:
        """Any thread: stop sending; records without an acknowledgement fail."""
        self.halted = True
        self._sender.force_close()

    def close(self, timeout: float) -> None:
        """Wait for acknowledgements up to `timeout` seconds, then drop the rest.

        Raises:
            BrokerAway: records were dropped.
        """
        self.halted = True
        try:
            self._producer.close(timeout=timeout)
        except KafkaError as error:
            # The client gives up its flush but leaves its sender running, which could still publish
            # what a successor publishes too.
            self.halt()
            raise translate(error) from error

    def abandon(self) -> None:
        """Stop sending for good, so that another producer can continue."""
        with contextlib.suppress(StreamlabelError):
            self.close(_ABANDON_TIMEOUT)
        self._sender.join(_JOIN_TIMEOUT)
        if not self._sender.is_alive():
            with contextlib.suppress(KafkaError, OSError, RuntimeError):
                internals.close_network(self._sender)  # a thread that crashed did not
        internals.mark_closed(self._producer)


def _patience(settings: Settings) -> float:
    """Return how long an output may be missing, seconds.

    The output of a deleted input may be deleted too. It is an output until the consumer notices.
    """
    return PATIENCE + (settings.kafka.metadata_max_age if settings.input.topic_pattern else 0.0)


def _options(settings: Settings, max_request: int) -> dict[str, Any]:
    compression = settings.output.compression
    return {
        "acks": "all",
        "enable_idempotence": True,
        "delivery_timeout_ms": _DELIVERY_TIMEOUT_MS,
        "max_block_ms": 10_000,
        "linger_ms": 0,  # records that arrive during a request make up the next batch
        "batch_size": min(_MAX_BATCH_BYTES, max_request),
        "max_request_size": max_request,
        "compression_type": None if compression == "none" else compression,
        "allow_auto_create_topics": False,
    }
