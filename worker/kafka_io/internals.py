"""Private and undocumented names of kafka-python, each with the reason for its use.

Owns: every access to the library beyond its public interface. Other modules import the library's
inner classes from here and call the functions below.
Thread: any; each function has its caller's thread.
Must not import: any module of the worker.

A release of the library may drop or change these names without notice. `NAMES` lists them all, and
`tests/kafka_io/test_internals.py` compares the list with the installed release.
"""

# ruff: noqa: SLF001 - this module exists to use private names

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kafka import (
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import OffsetSpec
from kafka.cluster import ClusterMetadata
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import IncompatibleBrokerVersion
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.inet import create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer.record_accumulator import IncompleteProducerBatches, RecordAccumulator
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager
from kafka.protocol.admin import DescribeGroupsRequest
from kafka.protocol.consumer import (
    UNKNOWN_MEMBER_ID,
    JoinGroupRequest,
    OffsetForLeaderEpochRequest,
)
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.record import legacy_records, memory_records
from kafka.record.default_records import (
    DefaultRecord,
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
    DefaultRecordMetadata,
)
from kafka.record.util import decode_varint, encode_varint

__all__ = [
    "UNKNOWN_MEMBER_ID",
    "AbstractTokenProvider",
    "ConsumerCoordinator",
    "ConsumerProtocolAssignment",
    "DefaultRecordBatch",
    "DefaultRecordBatchBuilder",
    "DefaultRecordMetadata",
    "DescribeGroupsRequest",
    "Fetcher",
    "Future",
    "JoinGroupRequest",
    "KafkaConnectionManager",
    "KafkaNetClient",
    "KafkaSSLTransport",
    "KafkaTCPTransport",
    "NetworkSelector",
    "create_connection",
    "decode_varint",
    "encode_varint",
]

# Owner (a class or a module) -> one name or several -> why they are used.
NAMES: Mapping[Any, Mapping[str, str]] = {
    # -- the parts of a client ---------------------------------------------------------------
    KafkaConsumer: {
        "_cluster": "metadata: is there a leader, is the topic still the same one, which exist",
        "_coordinator _fetcher": "the consumer makes them and takes no classes for them",
        "_net": "wakes the IO loop after another thread has completed a future",
        "_subscription": "`position()` asks the broker, the subscription knows without asking",
    },
    KafkaProducer: {
        "_accumulator": "takes records; knows which batches are not acknowledged; fails them",
        "_closed": "set, so that an abandoned producer is not flushed when it is collected",
        "_metadata": "does a partition have a leader; `partitions_for` blocks",
        "_sender": "must be woken, stopped and joined apart from `close`",
        "_transaction_manager": "the steps of a commit, which the public methods wait for unbounded",
        "_wait_on_metadata": "`partitions_for` waits as long as the start of a transaction may take",
    },
    KafkaAdminClient: {
        "_find_coordinator_ids": "a JoinGroup request goes to the group's coordinator",
        "_manager": "sends a JoinGroup request; knows the brokers' advertised addresses",
    },
    KafkaNetClient: {
        "_manager": "the connections of a client whose constructor may have failed",
        "_net": "its thread outlives a constructor that has failed",
    },
    SubscriptionState: {
        "all_consumed_offsets": "positions without a request",
        "change_subscription": "subscribes to the topics that were found, which may be none",
        "subscribed_pattern": "reset: the client matches the beginning of a name, at once",
        "seek": "takes the leader epoch of a position, which the public method drops",
    },
    ClusterMetadata: {
        "_last_successful_refresh_ms": "when a broker last answered about topics",
        "_topics": "the topics that the client asks for",
        "add_listener": "reports that a broker has moved",
        "bootstrap_brokers brokers broker_metadata": "addresses, configured and advertised",
        "cluster_id": "tells a topic of a mirrored cluster from one of this cluster",
        "leader_for_partition": "whether records can be sent or read",
        "partitions_for_topic": "returns None after a topic was deleted",
        "request_update": "asks brokers without waiting",
        "topic_id": "distinguishes a recreated topic from the old one",
        "topics": "the topics of the last response, without the internal ones",
    },
    Future: {"success failure": "awaited on the IO thread, completed by the revoke thread"},
    # -- the producer ------------------------------------------------------------------------
    RecordAccumulator: {
        "append": "takes a record without the checks of `send`, which cost a third of it",
        "_incomplete": "the batches that are not acknowledged",
        "abort_batches abort_undrained_batches": "replaced: a refusal must not fail requests in flight",
    },
    IncompleteProducerBatches: {"all": "the batches that are not acknowledged"},
    Sender: {
        "_client": "closed when the sender's thread died without closing it",
        "add_topic": "has the client ask for a topic whose metadata it happens to have, too",
        "force_close": "stops sending without a flush",
        "wakeup": "sends at once what was just enqueued",
    },
    TransactionManager: {
        "is_transactional maybe_add_partition_to_transaction": "as `send` does before it appends",
        "begin_abort begin_commit": "the public abort and commit wait without a bound",
        "last_error": "the cause; later exceptions only quote it",
        "send_offsets_to_transaction": "the public method waits without a bound",
    },
    # -- the consumer ------------------------------------------------------------------------
    Fetcher: {
        "PartitionRecords": "replaced: bounds a poll by bytes and names an unreadable batch",
        "_fetch_offsets_by_times_async _manager": "`end_offsets` waits for the answer",
        "_next_partition_records": "a used-up value keeps parked records from being returned",
        "_parse_fetched_data": "overridden: a fetch response carries the last stable offset",
    },
    Fetcher.PartitionRecords: {
        "next_fetch_offset": "where an unreadable batch begins",
        "record_iterator": "read one record at a time, up to the byte limit",
        "take": "overridden: bounds a poll by bytes",
        "topic_partition": "names the partition of an unreadable batch",
    },
    ConsumerCoordinator: {
        "_assignment_snapshot _is_leader _metadata_snapshot": (
            "the leader joins again if they differ, which a static one that restarted is not told"
        ),
        "_assignors": "keep the assignment of a membership that is lost",
        "_handle_heartbeat_response": "overridden: records when the group last confirmed us",
        "_handle_offset_fetch_response": "overridden: the client drops the offsets' metadata",
        "_join_task": "a join that no poll has finished",
        "_manager coordinator_id group_id": "ask the coordinator what the group's members have",
        "_offset_fetch_futures": "answers to a fetch of committed offsets before a rebalance",
        "_on_join_complete_async": "overridden: drops those answers",
        "_process_join_group_response": "overridden: it names the group's leader",
        "_process_sync_group_response": "overridden: the end of a join confirms us too",
        "_subscription": "takes the positions of partitions that have none",
        "fetch_committed_offsets fetch_committed_offsets_async": (
            "the offsets of several partitions with one request"
        ),
        "group_instance_id": "tells an earlier id of this member from those of others",
        "need_rejoin": "overridden: finishes a join that has begun",
        "refresh_committed_offsets_if_needed_async": "overridden: keeps the leaders' epochs",
        "rejoining": "reset, so that the next join is prepared again",
        "reset_generation": "overridden: runs when the membership is lost",
    },
    # -- connections -------------------------------------------------------------------------
    KafkaConnectionManager: {
        "_backoff": "nodes whose last connection failed",
        "_build_transport": "overridden: makes our transports",
        "_connect": "overridden: reports a refused login; counts a hang-up as a failure",
        "_conns": "open connections, to find late answers and brokers that moved",
        "_net": "schedules the check for late answers",
        "bootstrapped": "whether a broker has answered yet",
        "broker_version_data": "whether the brokers compare a position with their log",
        "call_soon": "runs a coroutine on the IO thread",
        "close closed": "overridden: the client's token is needed no longer",
        "cluster": "the metadata",
        "config": "socket options and timeouts",
        "connection_delay": "whether a node may be tried now",
        "get_connection": "overridden: raises a refusal instead of connecting again",
        "least_loaded_node": "overridden: falls back to bootstrap_servers",
        "least_used_connections": "overridden: a connection that awaits an answer is not idle",
        "run": "runs a coroutine on the IO thread and waits for it",
        "send": "sends a request to one node",
        "ssl_enabled": "which transport to make",
        "update_backoff": "counts a hang-up as a failure",
    },
    KafkaConnection: {
        "_sasl_authenticate": "wrapped: a refusal after the first sign-in need not be final",
        "config": "takes the password as its file has it now",
        "close_future": "forgets a reported connection once it is closed",
        "in_flight_requests": "requests without an answer, and when they were sent",
        "init_future": "why a connection failed",
        "initializing": "whether the connection is still being made",
        "transport": "the remote address and the time of the last byte",
    },
    KafkaTCPTransport: {
        "_net _sock": "the TLS handshake reads and writes the socket on the IO loop",
        "_sock_recv": "overridden: returns the data before the end of the connection",
        "host_port": "names the broker in a log line",
        "last_read": "how long the connection was idle",
    },
    KafkaSSLTransport: {"handshake": "overridden: the library's has no timeout"},
    AbstractTokenProvider: {
        "extensions": "overridden: sent with a token",
        "token": "overridden: called for each sign-in, and on the IO thread",
    },
    # -- records -----------------------------------------------------------------------------
    memory_records: {
        "DefaultRecordBatch DefaultRecordBatchBuilder": "replaced: no option sets these classes",
    },
    legacy_records: {"gzip_decode lz4_decode snappy_decode": "replaced: they unpack without bound"},
    DefaultRecordBatch: {
        "CODEC_NONE CODEC_GZIP CODEC_SNAPPY CODEC_LZ4 CODEC_ZSTD": "codec numbers",
        "__next__": "overridden: unpacks one record ahead",
        "_assert_has_codec": "raises UnsupportedCodecError",
        "_buffer": "replaced by the part that is unpacked so far",
        "_decompressed": "set once unpacking has begun",
        "_maybe_uncompress": "overridden: unpacks as records are read",
        "_next_record_index _num_records": "whether the batch has another record",
        "_pos": "the position in the buffer",
        "_read_msg": "overridden: accepts header names that are not UTF-8",
        "base_offset last_offset": "name an unreadable batch",
        "compression_type": "codec of the batch",
    },
    DefaultRecordBatchBuilder: {
        "append": "overridden: writes null header values, and writes faster",
        "_batch_size _buffer": "the bytes of the batch, and how many there may be",
        "_first_timestamp _max_timestamp _last_offset _num_records": "written into its header",
    },
    DefaultRecord: {"_headers": "has no setter"},
}


# -- clients -----------------------------------------------------------------------------------


def coordinator_of(consumer: Any) -> Any:
    """Return the consumer's group coordinator."""
    return consumer._coordinator


def fetcher_of(consumer: Any) -> Any:
    """Return the consumer's fetcher."""
    return consumer._fetcher


def wakeup_of(consumer: Any) -> Callable[[], None]:
    """Return the function that wakes the consumer's IO loop."""
    wakeup: Callable[[], None] = consumer._net.wakeup
    return wakeup


def consumed_offsets(consumer: Any) -> Mapping[TopicPartition, Any]:
    """Return the consumer's positions, without those that it does not know yet."""
    offsets: Mapping[TopicPartition, Any] = consumer._subscription.all_consumed_offsets()
    return offsets


def ask_end_offsets(consumer: Any, partitions: Iterable[Any], timeout_ms: float) -> Future:
    """Ask for end offsets; the future has an offset and timestamp for each partition."""
    fetcher = consumer._fetcher
    latest = dict.fromkeys(partitions, OffsetSpec.LATEST)
    return fetcher._manager.call_soon(fetcher._fetch_offsets_by_times_async, latest, timeout_ms)


def seek(consumer: Any, partition: TopicPartition, offset: int, leader_epoch: int) -> None:
    """Set the position of an assigned partition, with the leader epoch of the record there."""
    consumer._subscription.seek(partition, OffsetAndMetadata(offset, "", leader_epoch))


def consumer_metadata(consumer: Any) -> Any:
    """Return the consumer's cluster metadata."""
    return consumer._cluster


def producer_metadata(producer: Any) -> Any:
    """Return the producer's cluster metadata."""
    return producer._metadata


def manager_of(client: Any) -> Any:
    """Return the connections of an admin client or a `KafkaNetClient`."""
    return client._manager


def compares_epochs(manager: Any) -> bool:
    """Return whether the brokers tell where the records of a leader end (OffsetForLeaderEpoch)."""
    try:
        manager.broker_version_data.api_version(OffsetForLeaderEpochRequest)
    except IncompatibleBrokerVersion:
        return False
    return True


def stop_network(client: KafkaNetClient) -> None:
    """Close a client's connections and end its IO thread, as the library's own `close` does."""
    client.close()
    client._net.stop(timeout_ms=1000)


def sign_in_by(conn: KafkaConnection, sign_in: Callable[..., Any]) -> None:
    """Have a connection call `sign_in`, with its own method as the first argument, to sign in."""
    conn._sasl_authenticate = functools.partial(sign_in, conn._sasl_authenticate)


def ask_coordinator(admin: Any, group: str, request: Any) -> Any:
    """Send a request to the group's coordinator and return the response."""

    async def ask() -> Any:
        node_ids = await admin._find_coordinator_ids([group])
        return await admin._manager.send(request, node_id=node_ids[group])

    return admin._manager.run(ask)


# -- metadata ----------------------------------------------------------------------------------


def has_leader(metadata: Any, partition: TopicPartition) -> bool:
    """Return whether the metadata name a leader for the partition."""
    return metadata.leader_for_partition(partition) not in (None, -1)


def is_requested(metadata: Any, topic: str) -> bool:
    """Return whether the client asks brokers about the topic."""
    return topic in metadata._topics


def refreshed_at(metadata: Any) -> float:
    """Return when a broker last answered, in seconds of the monotonic clock."""
    seconds: float = metadata._last_successful_refresh_ms / 1000
    return seconds


def forget_topic(metadata: Any, topic: str) -> None:
    """Have the client ask for this topic no longer."""
    metadata._topics.discard(topic)


# -- consumer ----------------------------------------------------------------------------------


def subscribe_to_found(consumer: Any, listener: Any) -> None:
    """Subscribe to no topic yet, and have the metadata name all topics of the cluster.

    Without topics a consumer can subscribe to a pattern only: this one matches none.
    """
    consumer.subscribe(pattern="(?!)", listener=listener)
    consumer._subscription.subscribed_pattern = None


def change_topics(consumer: Any, topics: Iterable[str]) -> None:
    """Replace the topics of such a subscription; the next poll joins the group with them."""
    consumer._subscription.change_subscription(list(topics))


def return_parked_records(consumer: Any) -> None:
    """Let the fetcher return what it parked when a partition was paused."""
    fetcher = consumer._fetcher
    if not fetcher._next_partition_records:
        fetcher._next_partition_records = None


# -- producer ----------------------------------------------------------------------------------


def accumulator_of(producer: Any) -> Any:
    """Return the producer's queue of batches."""
    return producer._accumulator


def await_partitions(producer: Any, topic: str, timeout: float) -> int:
    """Wait up to `timeout` seconds for the metadata of a topic; return how many partitions it has.

    Raises:
        KafkaError: there was no answer, or none that names the topic.
        RuntimeError: the producer's connections are closed.
    """
    producer._sender.add_topic(topic)
    return len(producer._wait_on_metadata(topic, timeout * 1000))


def request_metadata(producer: Any) -> None:
    """Have the client ask a broker about its topics."""
    producer._metadata.request_update()
    producer._sender.wakeup()


def append_record(producer: Any, partition: TopicPartition, *record: Any) -> Any:
    """Enqueue a record as `KafkaProducer.send` does, without its checks of every field.

    Args:
        producer: has metadata of the partition.
        partition: the record's.
        record: timestamp in ms, key, value, and headers without null.

    Returns:
        The record's future.
    """
    transactions = producer._transaction_manager
    if transactions and transactions.is_transactional():
        transactions.maybe_add_partition_to_transaction(partition)
    future, is_full, is_new, _ = producer._accumulator.append(partition, *record)
    if is_full or is_new:
        producer._sender.wakeup()
    return future


def unacknowledged_batches(producer: Any) -> Iterable[Any]:
    """Return the batches that are neither acknowledged nor refused."""
    batches: Iterable[Any] = producer._accumulator._incomplete.all()
    return batches


def transactions_of(producer: Any) -> Any:
    """Return the producer's transaction manager."""
    return producer._transaction_manager


def sender_of(producer: Any) -> Any:
    """Return the producer's sender thread."""
    return producer._sender


def close_network(sender: Any) -> None:
    """Close the connections of a sender whose thread has ended."""
    sender._client.close()


def mark_closed(producer: Any) -> None:
    """Keep the producer's finalizer from flushing it."""
    producer._closed = True


# -- records -----------------------------------------------------------------------------------


def read_batches_with(batch: type) -> None:
    """Have all consumers of this process read batches with this class."""
    memory_records.DefaultRecordBatch = batch


def write_batches_with(builder: type) -> None:
    """Have all producers of this process write batches with this class."""
    memory_records.DefaultRecordBatchBuilder = builder


def decode_legacy_batches_with(decoders: Mapping[str, Callable[[Any], bytes]]) -> None:
    """Replace the functions that unpack batches from before Kafka 0.11, by name."""
    for name, decode in decoders.items():
        setattr(legacy_records, name, decode)


def set_headers(record: DefaultRecord, headers: list[tuple[str, bytes | None]]) -> None:
    """Replace the headers of a record."""
    record._headers = headers
