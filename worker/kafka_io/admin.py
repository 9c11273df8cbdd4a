"""Describes and creates topics, and reads offsets and group members.

Owns: an admin client.
Thread: any. The library's client is not safe across threads, so every call holds one lock.
Must not import: inference, runtime.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from kafka import (
    IsolationLevel,
    KafkaAdminClient,
    OffsetAndMetadata,
    TopicPartition,
    errors,
)
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from worker.clock import Clock, SystemClock
from worker.core.records import Partition
from worker.core.topics import TopicInfo
from worker.errors import BrokerAway, Fatal, StreamlabelError, TopicMissing
from worker.kafka_io.connection import Closeable, connect
from worker.kafka_io.internals import manager_of
from worker.kafka_io.probe import unreachable
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings, Settings, WorkerTopics

Result = TypeVar("Result")
Isolation = Literal["read_committed", "read_uncommitted"]

# A new cluster creates its internal topics at the first request about a group, and a new topic
# elects its leaders: for a few seconds "not yet" is an ordinary response.
CREATION_TIME = 15.0  # seconds
_RETRY_PAUSE = 0.25  # seconds
# Answers to an offset that comes from no member of a group that has some.
_HAS_MEMBERS = {"UnknownMemberIdError", "IllegalGenerationError", "RebalanceInProgressError"}

_CONFIGS = (
    "max.message.bytes",
    "cleanup.policy",
    "retention.ms",
    "message.timestamp.type",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "min.insync.replicas",
)


class GroupOffset(NamedTuple):
    """A committed offset and its metadata, which `core.bounds.read_note` reads."""

    offset: int
    note: str


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a consumer group and its partitions."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[Partition, ...]


class Admin(Closeable):
    """An admin client; a context manager.

    Raises:
        BrokerAway, AccessDenied, Fatal: as `connection.connect` does; so does every method.
    """

    def __init__(self, kafka: KafkaSettings, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._client = connect(KafkaAdminClient, kafka)

    def close(self) -> None:
        """Close the connections; idempotent."""
        with self._lock:
            self._client.close()

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo | None]:
        """Describe topics; a topic that does not exist maps to None."""
        requested = list(names)
        described = self._call(lambda client: client.describe_topics(requested))
        existing = {topic["name"]: topic for topic in described if _exists(topic)}
        configs = self._configs([name for name in requested if name in existing])
        return {
            name: _info(existing[name], configs.get(name, {})) if name in existing else None
            for name in requested
        }

    def resolve(self, topics: WorkerTopics) -> WorkerTopics:
        """Return the topics with the inputs that match the pattern now, if there is one."""
        return topics if topics.pattern is None else topics.among(self.names())

    def names(self) -> list[str]:
        """Return the names of every topic but Kafka's internal ones."""
        described = self._call(lambda client: client.describe_topics())
        return [one["name"] for one in described if _exists(one) and not one["is_internal"]]

    def _configs(self, names: list[str]) -> dict[str, dict[str, Any]]:
        if not names:
            return {}
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, name, configs=list(_CONFIGS)) for name in names
        ]
        response = self._call(lambda client: _describe_configs(client, resources))
        configs: dict[str, dict[str, Any]] = response.get("topic", {})
        return configs

    def create(self, name: str, partitions: int, replication: int = -1) -> bool:
        """Create a topic and wait until it can be used.

        Args:
            name: the topic.
            partitions: number of partitions.
            replication: replication factor; -1 is the broker's default, or 1 if it has none.

        Returns:
            False if the topic existed already.

        Raises:
            Fatal: the broker refuses; the message has its reason.
        """
        error, reason = self._create(name, partitions, replication)
        if replication == -1 and issubclass(
            error, errors.InvalidReplicationFactorError | errors.UnsupportedVersionError
        ):
            error, reason = self._create(name, partitions, 1)
        if error not in {errors.NoError, errors.TopicAlreadyExistsError}:
            raise _create_error(name, error, reason)
        self._call(lambda client: client.wait_for_topics([name]))
        return error is errors.NoError

    def _create(self, name: str, partitions: int, replication: int) -> tuple[type[Exception], str]:
        request = {name: {"num_partitions": partitions, "replication_factor": replication}}
        response = self._call(lambda client: client.create_topics(request, raise_errors=False))
        (topic,) = response["topics"]
        return errors.for_code(topic["error_code"]), topic["error_message"] or ""

    def start_offsets(self, topic: str) -> dict[int, int]:
        """Return each partition's first offset that the log still has.

        Raises:
            TopicMissing: the topic does not exist.
        """
        return self._offsets(topic, OffsetSpec.EARLIEST, "read_uncommitted")

    def end_offsets(self, topic: str, isolation: Isolation = "read_uncommitted") -> dict[int, int]:
        """Return the offset of each partition's next record.

        Args:
            topic: the topic.
            isolation: `read_committed` returns the offset of the first open transaction instead.

        Raises:
            TopicMissing: the topic does not exist.
        """
        return self._offsets(topic, OffsetSpec.LATEST, isolation)

    def _offsets(self, topic: str, spec: OffsetSpec, isolation: Isolation) -> dict[int, int]:
        info = self.topics([topic])[topic]
        if info is None:
            raise TopicMissing(f"topic {topic!r} does not exist (`streamlabel topics create`)")
        partitions = [Partition(topic, number) for number in range(info.partitions)]
        return {p.partition: at for p, at in self.offsets(partitions, spec, isolation).items()}

    def offsets(
        self,
        partitions: Iterable[Partition],
        spec: OffsetSpec | int,
        isolation: Isolation = "read_uncommitted",
    ) -> dict[Partition, int]:
        """Return an offset of each of these existing partitions.

        Args:
            partitions: of any topics.
            spec: an end of the log, or the first record at or after a time (ms since 1970 UTC),
                which is -1 if there is none.
            isolation: as for `end_offsets`.
        """
        specs = {TopicPartition(*partition): spec for partition in partitions}
        level = IsolationLevel.build_from(isolation)
        offsets = self._call(lambda client: client.list_partition_offsets(specs, level))
        return {Partition(*tp): offsets[tp].offset for tp in sorted(offsets)}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the group's committed offset of each partition of a topic that has one."""
        offsets = self.all_committed(group)
        return {p.partition: at for p, at in offsets.items() if p.topic == topic}

    def all_committed(self, group: str) -> dict[Partition, int]:
        """Return the group's committed offset of each partition that has one."""
        return {partition: at.offset for partition, at in self.group_offsets(group).items()}

    def group_offsets(self, group: str) -> dict[Partition, GroupOffset]:
        """Return the group's committed offset of each partition that has one, with its note."""
        offsets = self._call(lambda client: client.list_group_offsets({group: None}))
        return {
            Partition(*tp): GroupOffset(at.offset, at.metadata or "")
            for tp, at in sorted(offsets.get(group, {}).items())
            if at.offset >= 0
        }

    def set_offsets(self, group: str, offsets: Mapping[Partition, GroupOffset]) -> None:
        """Replace committed offsets of a group without members.

        Raises:
            Fatal: the broker refuses an offset, for example because the group has members.
        """
        request = {
            TopicPartition(*partition): OffsetAndMetadata(at.offset, at.note, -1)
            for partition, at in offsets.items()
        }
        results = self._call(lambda client: client.alter_group_offsets(group, request))
        refused = {
            Partition(*tp): error
            for tp, error in sorted(results.items())
            if error is not errors.NoError
        }
        if refused:
            causes = sorted({error.__name__ for error in refused.values()})
            names = ", ".join(f"{p.topic}[{p.partition}]" for p in refused)
            raise Fatal(
                f"group {group!r}: the broker refuses the offsets of {names}: {', '.join(causes)}"
                + ("; stop all members of the group first" if _HAS_MEMBERS & set(causes) else "")
            )

    def members(self, group: str) -> list[Member]:
        """Return the group's members and their partitions."""
        described = self._call(lambda client: _describe_group(client, group))
        return [_member(member) for member in described.get("members", [])]

    def unreachable_brokers(self) -> list[str]:
        """Return a sentence for each broker whose advertised address can't be reached."""
        brokers = manager_of(self._client).cluster.brokers()
        return unreachable((broker.node_id, broker.host, broker.port) for broker in brokers)

    def _call(self, function: Callable[[Any], Result]) -> Result:
        def call() -> Result:
            with self._lock:
                return function(self._client)

        return retry_while_away(self._clock, call)


def retry_while_away(clock: Clock, function: Callable[[], Result]) -> Result:
    """Call a function until its result is not BrokerAway, for `CREATION_TIME` at most.

    Raises:
        StreamlabelError: the function's exception, translated.
    """
    deadline = clock.monotonic() + CREATION_TIME
    while True:
        try:
            return function()
        except Exception as error:
            cause = translate(error)
            late = clock.monotonic() >= deadline
            if late or not isinstance(cause, BrokerAway):
                raise cause from error
        clock.sleep(_RETRY_PAUSE)


def resolved(settings: Settings) -> WorkerTopics:
    """Return the topics with the inputs that match a pattern now; without one, ask nothing.

    Raises:
        BrokerAway, Fatal: as `Admin`.
    """
    if settings.topics.pattern is None:
        return settings.topics
    with Admin(settings.kafka) as admin:
        return admin.resolve(settings.topics)


def _exists(topic: dict[str, Any]) -> bool:
    error = errors.for_code(topic["error_code"])
    if error in {errors.UnknownTopicOrPartitionError, errors.InvalidTopicError}:
        return False
    if error not in {errors.NoError, errors.LeaderNotAvailableError}:
        raise translate(error(f"topic {topic['name']!r}"))
    return True


def _describe_configs(client: Any, resources: list[ConfigResource]) -> dict[str, Any]:
    """Return topics' configurations; none if the user may not read them or the broker has none."""
    try:
        response: dict[str, Any] = client.describe_configs(resources, config_filter="all")
    except (errors.UnsupportedVersionError, errors.AuthorizationError):
        return {}
    return response


def _info(topic: dict[str, Any], configs: dict[str, Any]) -> TopicInfo:
    partitions = topic["partitions"]

    def text(name: str) -> str | None:
        value: str | None = configs.get(name, {}).get("value")
        return value

    def number(name: str) -> int | None:
        value = text(name)
        return int(value) if value else None

    return TopicInfo(
        partitions=len(partitions),
        replication_factor=max((len(part["replica_nodes"]) for part in partitions), default=0),
        max_message_bytes=number("max.message.bytes"),
        cleanup_policy=text("cleanup.policy"),
        retention_ms=number("retention.ms"),
        timestamp_type=text("message.timestamp.type"),
        timestamp_before_ms=number("message.timestamp.before.max.ms"),
        timestamp_after_ms=number("message.timestamp.after.max.ms"),
        min_insync_replicas=number("min.insync.replicas"),
    )


def _create_error(name: str, error: type[Exception], reason: str) -> StreamlabelError:
    cause = translate(error(reason))
    # Elsewhere "invalid topic" means a missing one, with the advice to create it.
    error_type = Fatal if isinstance(cause, TopicMissing) else type(cause)
    return error_type(f"can't create topic {name!r}: {reason or error.__name__}")


def _describe_group(client: Any, group: str) -> dict[str, Any]:
    description: dict[str, Any] = client.describe_groups([group])[group]
    # The client puts an error into the result as text: "[Error 16] NotCoordinatorError: None".
    if text := description.get("error"):
        name = text.partition("] ")[2].partition(":")[0]
        if name == errors.GroupIdNotFoundError.__name__:  # Kafka 4, for a group without members
            return {}
        raise getattr(errors, name, errors.KafkaError)(text)
    return description


def _member(member: dict[str, Any]) -> Member:
    assignment = member.get("member_assignment") or {}
    assigned = assignment.get("assigned_partitions", []) if isinstance(assignment, dict) else []
    return Member(
        member_id=member["member_id"],
        client_id=member["client_id"],
        host=member["client_host"].lstrip("/"),
        partitions=tuple(
            sorted(Partition(entry["topic"], p) for entry in assigned for p in entry["partitions"])
        ),
    )
