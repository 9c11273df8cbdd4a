"""One Kafka producer, from its options to its end.

The publish thread owns a `Publisher`, but for `check`, which is the poll thread's; the client's
sender thread runs behind it. Translates the client's exceptions; imports no inference and no
runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from worker.clock import Clock
from worker.core.faults import backoff
from worker.core.records import Encoded
from worker.core.topic_limits import LARGEST_RECORD
from worker.errors import BrokerAway, Fatal, Fenced, PublishRefused, StreamlabelError
from worker.kafka_io.connection import connect
from worker.kafka_io.nulls import sendable
from worker.kafka_io.refusals import NotSent, refusal_of
from worker.kafka_io.translation import translate
from worker.kafka_io.watch import TopicWatch
from worker.logs import get_logger
from worker.settings import Settings

log = get_logger(__name__)

# The idempotent producer keeps order and drops its own repeats for as long as it tries; giving up
# would only turn a long outage into a restart. The largest 32-bit number of ms is 24 days.
_FOR_EVER_MS = 2**31 - 1
_SEND_ATTEMPTS = 20
_BATCH = 262_144  # bytes at most; a larger one is refused, split and sent again
_ABANDON = 0.1  # seconds that a producer gets which is given up
_LAST_STEP = 1.0  # seconds at most for its thread to end
_RETRY_TRANSACTION_MS = 20  # as the Java client does for a transaction's first partition
# The broker is asked about each record that the encoder lets through: the client's own bound would
# be that of requests.
_NO_BOUND = 2 * LARGEST_RECORD


class Publisher:
    """A producer that sends outcomes to the partitions where they belong.

    Args:
        settings: cluster and compression.
        partitions: partitions of each topic that is published to; it may get more.
        max_request: largest request, bytes; a record that is larger goes alone.
        clock: waits between tries.
        transactional_id: makes it a transactional one; it is fenced in by `begin_epoch`.

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
    ) -> None:
        self._partitions, self._clock = dict(partitions), clock
        self._transaction_timeout = settings.transaction_timeout
        self._request_timeout = settings.kafka.request_timeout
        options = _options(settings, max_request)
        if transactional_id:
            options["transactional_id"] = transactional_id
            options["transaction_timeout_ms"] = int(settings.transaction_timeout * 1000)
            # A transaction that begins while the last one's end is still being written is told to
            # come again: that wait is part of every result's latency.
            options["retry_backoff_ms"] = _RETRY_TRANSACTION_MS
        self._producer = connect(KafkaProducer, settings.kafka, **options)
        self._producer.config["max_request_size"] = _NO_BOUND  # the sender has its own copy
        _keep_what_is_on_the_wire(self._producer)
        metadata = self._producer._metadata  # noqa: SLF001 - there is no public way
        self._watch = TopicWatch(metadata, partitions, clock)

    def check(self) -> None:
        """Return while the topics are what they were; always from the same thread.

        The client would keep what it can't send, and ask for the topic for ever.

        Raises:
            TopicMissing: one was deleted.
        """
        self._watch.check()

    def await_metadata(self) -> None:
        """Know every topic, so that `send` only enqueues.

        `send` would block for them too, but in the middle of a batch, where trying again would
        publish the first half twice. Partitions that a topic got under way are used from here on.

        Raises:
            BrokerAway: not yet.
            Fatal: a topic is gone or forbidden.
        """
        for topic, number in self._partitions.items():
            try:
                there = len(self._producer.partitions_for(topic))
            except KafkaError as error:
                raise translate(error) from error
            if there > number:
                self._spread(topic, there)

    def _spread(self, topic: str, there: int) -> None:
        """Use all the partitions that the topic has now.

        With more of them, the outcomes of some input partitions go elsewhere: 1 went to 0 while
        there was but one, and goes to 1 of three. All that went to the old place is acknowledged
        before the first goes to the new one: no later outcome is there before an earlier one.

        To stay with the old number for the life of the process would only put that off to the next
        start or rebalance, and until then the workers of a group would not agree on the place.
        """
        if any(batch.topic_partition.topic == topic for batch in self._unacknowledged()):
            raise BrokerAway(
                f"topic {topic!r} has {there} partitions now: what went by the old number must be "
                "acknowledged first"
            )
        log.info(
            "a topic has more partitions, outcomes go by the new number",
            topic=topic,
            before=self._partitions[topic],
            now=there,
        )
        self._partitions[topic] = there

    def _unacknowledged(self) -> Iterable[Any]:
        return self._producer._accumulator._incomplete.all()  # type: ignore[no-any-return] # noqa: SLF001 - no public way

    def send(self, outcome: Encoded) -> Any:
        """Enqueue one record; should its topic's metadata vanish this moment, wait for them.

        Returns:
            The client's future of the acknowledgement.

        Raises:
            Fatal: the client refuses the record.
        """
        for attempt in range(_SEND_ATTEMPTS):
            try:
                return self._enqueue(outcome)
            except (KafkaError, ValueError) as error:
                cause = translate(error)
                passing = isinstance(cause, BrokerAway) or isinstance(error, ValueError)
                if not passing or attempt == _SEND_ATTEMPTS - 1:
                    raise refusal(error, outcome) from error
                self._clock.sleep(backoff(attempt))
        raise AssertionError("unreachable")

    def _enqueue(self, outcome: Encoded) -> Any:
        return self._producer.send(
            outcome.topic,
            value=outcome.value,
            key=outcome.key,
            headers=sendable(outcome.headers),
            partition=self.partition_of(outcome),
            timestamp_ms=outcome.timestamp_ms,
        )

    def settle(self, future: Any) -> None:
        """Wait for the answer to one record, up to a request's time; it may be a refusal."""
        self._producer._sender.wakeup()  # noqa: SLF001 - there is no public way
        with contextlib.suppress(KafkaError):
            future.get(timeout=self._request_timeout)

    def partition_of(self, outcome: Encoded) -> int:
        """The source's partition, so that all of its results stay in order whatever their keys."""
        return outcome.ref.partition % self._partitions[outcome.topic]

    def has_leader(self, partition: TopicPartition) -> bool:
        """Whether there is a broker, as far as the metadata tell, that could take its records."""
        metadata = self._producer._metadata  # noqa: SLF001 - there is no public way
        return metadata.leader_for_partition(partition) not in (None, -1)

    def neglected(self, since: float) -> set[TopicPartition]:
        """Partitions for whose oldest batch the client has done nothing since then.

        What is behind the oldest waits for its answer, and counts for nothing.

        Args:
            since: monotonic seconds.
        """
        oldest: dict[TopicPartition, tuple[float, float]] = {}  # when it was created, and touched
        for batch in self._unacknowledged():
            touched = max(batch.created, batch.last_attempt, batch.drained or 0.0)
            seen = oldest.get(batch.topic_partition, (batch.created, 0.0))
            if batch.created <= seen[0]:  # the halves of a batch that was split are of one age
                last = touched if batch.created < seen[0] else max(touched, seen[1])
                oldest[batch.topic_partition] = (batch.created, last)
        return {partition for partition, (_, touched) in oldest.items() if touched < since}

    # -- transactions --------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Fence whoever used the transactional id before; their transaction is over afterwards.

        Raises KafkaError.
        """
        self._producer.init_transactions()

    def begin(self) -> None:
        """Open a transaction. Raises KafkaError."""
        self._producer.begin_transaction()

    def commit(self, offsets: Mapping[Any, Any], membership: Any, sent: Iterable[Any]) -> None:
        """Commit what was `sent` (the futures of it) and these offsets.

        The client's word is not enough. When a broker has lost a producer's state (a leader that
        was killed), it refuses a batch; the client then begins a new epoch, which aborts the
        transaction, and finds nothing left to commit: `commit_transaction` returns as if all were
        well. The batch's own future knows better.

        Raises:
            KafkaError: then all is uncertain.
        """
        manager = self._producer._transaction_manager  # noqa: SLF001
        self._await(manager.send_offsets_to_transaction(offsets, membership))
        self._await(manager.begin_commit())
        for future in sent:
            if not future.succeeded():
                raise future.exception or KafkaError("a record was not acknowledged")

    def _await(self, step: Any, timeout: float | None = None) -> None:
        """Wait for a step of a transaction, as the client's own methods do without a bound.

        They may wait for ever: a step that is under way when the client begins a new epoch is
        forgotten. After the transaction's timeout the broker has aborted it anyway.
        """
        self._producer._sender.wakeup()  # noqa: SLF001 - there is no public way
        if not step.wait(timeout_ms=(timeout or self._transaction_timeout) * 1000):
            raise KafkaTimeoutError("a step of a transaction was not answered")

    @property
    def last_error(self) -> Exception | None:
        """What a transaction failed of first: what is raised later only quotes it."""
        told: Exception | None = self._producer._transaction_manager.last_error  # noqa: SLF001
        return told

    def abort(self, timeout: float) -> None:
        """Abort the open transaction, so that readers need not wait for its timeout."""
        with contextlib.suppress(KafkaError):
            self._await(self._producer._transaction_manager.begin_abort(), timeout)  # noqa: SLF001

    # -- the end -------------------------------------------------------------------------------

    def halt(self) -> None:
        """Any thread: send nothing more; what was not acknowledged is refused."""
        self._producer._sender.force_close()  # noqa: SLF001 - there is no public way

    def close(self, timeout: float) -> None:
        """Wait for acknowledgements up to `timeout` seconds, then drop what is left.

        Raises:
            BrokerAway: something was dropped.
        """
        try:
            self._producer.close(timeout=timeout)
        except KafkaError as error:
            # The client gives up on its flush and leaves its sender running: what it would still
            # publish then would be a successor's work done twice.
            self.halt()
            raise translate(error) from error

    def abandon(self) -> None:
        """Have it send nothing more, so that another one can go on from here."""
        with contextlib.suppress(StreamlabelError):
            self.close(_ABANDON)
        sender = self._producer._sender  # noqa: SLF001 - there is no public way
        sender.join(_LAST_STEP)
        if not sender.is_alive():
            with contextlib.suppress(KafkaError, OSError, RuntimeError):
                sender._client.close()  # noqa: SLF001 - a thread that died did not
        self._producer._closed = True  # noqa: SLF001 - or it is flushed when it is collected


def _options(settings: Settings, max_request: int) -> dict[str, Any]:
    compression = settings.output.compression
    return {
        "acks": "all",
        "enable_idempotence": True,
        "delivery_timeout_ms": _FOR_EVER_MS,
        "max_block_ms": 10_000,
        "linger_ms": 0,  # what comes while a request is under way makes the next batch
        "batch_size": min(_BATCH, max_request),
        "max_request_size": max_request,
        "compression_type": None if compression == "none" else compression,
        "allow_auto_create_topics": False,
    }


def _keep_what_is_on_the_wire(producer: Any) -> None:
    """After a refusal, have the client drop what it has not sent, and that alone.

    It sends nothing more then, and would fail everything at once with the refusal of one record,
    even requests that are under way and may be stored.
    """
    accumulator = producer._accumulator  # noqa: SLF001 - there is no public way
    drop_all, drop_unsent = accumulator.abort_batches, accumulator.abort_undrained_batches

    def drop(error: Exception, usual: Callable[[Exception], None]) -> None:
        if refusal_of(error) is None:
            usual(error)
        else:
            drop_unsent(NotSent("another record was refused"))

    accumulator.abort_batches = partial(drop, usual=drop_all)
    accumulator.abort_undrained_batches = partial(drop, usual=drop_unsent)


def refusal(error: Exception, outcome: Encoded | None = None) -> Fatal:
    """What a record that was not taken means: the worker stops."""
    cause = translate(error)
    if isinstance(cause, Fenced):
        return cause
    which = f" of {len(outcome.value)} bytes to {outcome.topic}" if outcome else ""
    return PublishRefused(f"the broker refuses a record{which}: {cause}")
