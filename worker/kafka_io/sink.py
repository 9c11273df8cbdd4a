"""Outcomes out: the producer, plain or transactional.

The publish thread owns a sink. Acknowledgements arrive on the client's IO thread; there a
completion is put into a queue, and nothing else happens. Translates the client's exceptions;
imports no inference and no runtime.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from worker.clock import Clock
from worker.core.faults import backoff
from worker.core.records import Completion, Encoded, Partition, RecordRef
from worker.errors import BrokerAway, Fatal, Fenced, PublishRefused, StreamlabelError
from worker.kafka_io.connection import connect, translate
from worker.settings import Settings

OnCompletion = Callable[[Completion], None]

# The idempotent producer keeps order and drops its own repeats for as long as it tries; giving up
# would only turn a long outage into a restart. The largest 32-bit number of ms is 24 days.
_FOR_EVER_MS = 2**31 - 1
_SEND_ATTEMPTS = 20


class Membership(Protocol):
    """What the sink asks of the source; safe on any thread."""

    def current(self, ref: RecordRef) -> bool: ...
    def group_metadata(self) -> Any: ...


class RecordSink(Protocol):
    """Where outcomes go."""

    commits_offsets: bool

    def publish(self, outcomes: Sequence[Encoded]) -> None: ...
    def close(self, timeout: float) -> None: ...


class KafkaSink:
    """At least once: an idempotent producer; the offsets are committed by the poll thread.

    Args:
        settings: cluster, topics, compression.
        partitions: partitions of each topic that is published to.
        max_request: largest request that both topics take, bytes.
        on_completion: called on the client's IO thread; must only enqueue.
        source: knows which assignments still stand; what was polled under others is not
            published, for another worker has it now.
        clock: stamps the hand-over.
    """

    commits_offsets = False

    def __init__(
        self,
        settings: Settings,
        partitions: dict[str, int],
        max_request: int,
        on_completion: OnCompletion,
        source: Membership,
        clock: Clock,
    ) -> None:
        self._partitions = partitions
        self._on_completion = on_completion
        self._source = source
        self._clock = clock
        self._producer = _producer(settings, max_request, self._transactional_options(settings))
        self._open()

    def _open(self) -> None:
        """What the producer needs before its first record: nothing here."""

    def _transactional_options(self, _: Settings) -> dict[str, Any]:
        return {}

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Hand a batch to the client; one completion follows when all of it is acknowledged.

        Raises:
            BrokerAway: nothing was handed over; call again with the same batch.
            Fatal: the topic is gone or forbidden, or the client refuses a record.
        """
        self._await_metadata()
        current = self._current(outcomes)
        pending = _Pending(current, self._clock.monotonic(), self._on_completion)
        for outcome in current:
            self._send(outcome).add_callback(pending.acknowledged).add_errback(pending.refused)

    def _current(self, outcomes: Sequence[Encoded]) -> tuple[Encoded, ...]:
        return tuple(outcome for outcome in outcomes if self._source.current(outcome.ref))

    def _await_metadata(self) -> None:
        # `send` would block for them too, but in the middle of a batch, where trying again would
        # publish the first half twice. With the metadata in hand, `send` only enqueues.
        for topic in self._partitions:
            try:
                self._producer.partitions_for(topic)
            except KafkaError as error:
                raise translate(error) from error

    def _send(self, outcome: Encoded) -> Any:
        """Enqueue one record; should its topic's metadata vanish this moment, wait for them."""
        for attempt in range(_SEND_ATTEMPTS):
            try:
                return self._enqueue(outcome)
            except (KafkaError, ValueError) as error:
                cause = translate(error)
                passing = isinstance(cause, BrokerAway) or isinstance(error, ValueError)
                if not passing or attempt == _SEND_ATTEMPTS - 1:
                    raise _refused(outcome, error) from error
                self._clock.sleep(backoff(attempt))
        raise AssertionError("unreachable")

    def _enqueue(self, outcome: Encoded) -> Any:
        return self._producer.send(
            outcome.topic,
            value=outcome.value,
            key=outcome.key,
            headers=outcome.headers,
            # The partition follows the source's, so that all of a partition's results stay in
            # its order whatever their keys.
            partition=outcome.ref.partition % self._partitions[outcome.topic],
            timestamp_ms=outcome.timestamp_ms,
        )

    def close(self, timeout: float) -> None:
        """Wait for acknowledgements up to `timeout` seconds, then drop what is left."""
        try:
            self._producer.close(timeout=timeout)
        except KafkaError as error:
            # The client gives up on its flush and leaves its sender running: what it would still
            # publish then would be a successor's work done twice.
            self._producer._sender.force_close()  # noqa: SLF001 - there is no public way
            raise translate(error) from error


class TransactionalSink(KafkaSink):
    """Exactly once: each batch's outcomes and input offsets in one transaction.

    Batches arrive in poll order and each is committed before the next is begun, so the largest
    offset of a partition in this batch, plus one, is where a successor must go on.

    The race with a rebalance, walked through: the group's generation is noted first, then the
    outcomes of partitions that went are left out, then all is sent. Should a partition go after
    that, the noted generation is over and the broker refuses the offsets: the batch is aborted,
    and the next try leaves that partition out.
    """

    commits_offsets = True

    def _open(self) -> None:
        try:
            self._producer.init_transactions()
        except KafkaError as error:
            # Another try makes another producer; this one must not fence it later.
            with contextlib.suppress(StreamlabelError):
                self.close(0.1)
            raise translate(error) from error

    def _transactional_options(self, settings: Settings) -> dict[str, Any]:
        return {
            "transactional_id": transactional_id(settings),
            "transaction_timeout_ms": int(settings.transaction_timeout * 1000),
        }

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        """Publish a batch and its offsets atomically; returns after the commit.

        Raises:
            BrokerAway: aborted; call again with the same batch.
            Fenced: a successor has this worker's transactional id or its place in the group.
            Fatal: anything else; nothing of the batch is visible to `read_committed` readers.
        """
        sent_at = self._clock.monotonic()
        self._await_metadata()
        membership = self._source.group_metadata()
        current = self._current(outcomes)
        if not current:
            return
        self._producer.begin_transaction()
        try:
            for outcome in current:
                self._send(outcome)
            self._producer.send_offsets_to_transaction(_next_offsets(current), membership)
            self._producer.commit_transaction()
        except (KafkaError, StreamlabelError) as error:
            raise self._aborted(error) from error
        self._on_completion(Completion(current, sent_at))

    def _aborted(self, error: Exception) -> StreamlabelError:
        cause = translate(error)
        try:
            self._producer.abort_transaction()
        except KafkaError as second:
            if not isinstance(cause, Fenced):  # a fenced producer can't, and need not
                return Fatal(f"a transaction could neither be committed nor aborted: {second}")
        return cause


class _Pending:
    """Counts a batch's acknowledgements down.

    A callback runs on the client's IO thread, or, when the answer is there before the callback
    is added, on the publish thread: hence the lock.
    """

    def __init__(
        self, outcomes: tuple[Encoded, ...], sent_at: float, on_completion: OnCompletion
    ) -> None:
        self._outcomes = outcomes
        self._sent_at = sent_at
        self._left = len(outcomes)
        self._told = False
        self._on_completion = on_completion
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
        if not first:  # once one is refused, the client refuses its mates too
            return
        refusal = _refused(None, error)
        self._on_completion(Completion(self._outcomes, self._sent_at, refusal))


def _producer(settings: Settings, max_request: int, more: dict[str, Any]) -> KafkaProducer:
    options = {
        "acks": "all",
        "enable_idempotence": True,
        "delivery_timeout_ms": _FOR_EVER_MS,
        "max_block_ms": 10_000,
        "linger_ms": 5,
        "batch_size": 262_144,
        "max_request_size": max_request,
        "compression_type": None
        if settings.output.compression == "none"
        else settings.output.compression,
        "allow_auto_create_topics": False,
    }
    return connect(KafkaProducer, settings.kafka, **options, **more)


def transactional_id(settings: Settings) -> str:
    """Stable for a worker slot where `kafka.group_instance_id` names one: a successor fences it.

    Otherwise unique to the process: a zombie is then fenced by its group generation (KIP-447),
    and the transaction that it left open ends at `transaction_timeout`.
    """
    slot = settings.kafka.group_instance_id or uuid.uuid4().hex
    return f"{settings.kafka.group_id}-{slot}"


def _next_offsets(outcomes: Sequence[Encoded]) -> dict[Any, Any]:
    highest: dict[Partition, int] = {}
    for outcome in outcomes:
        topic, partition, offset, _ = outcome.ref
        highest[Partition(topic, partition)] = offset + 1
    return {TopicPartition(*p): OffsetAndMetadata(o, "", -1) for p, o in highest.items()}


def _refused(outcome: Encoded | None, error: Exception) -> Fatal:
    cause = translate(error)
    if isinstance(cause, Fenced):
        return cause
    which = f" of {len(outcome.value)} bytes to {outcome.topic}" if outcome else ""
    return PublishRefused(f"the broker refuses a record{which}: {cause}")
