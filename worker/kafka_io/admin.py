"""Topics, offsets and group members: what is asked of the cluster besides records.

Any thread may use an `Admin`: the library's own client is not safe across threads, so every call
holds one lock. Translates the client's exceptions; imports no inference and no runtime.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from kafka import IsolationLevel, KafkaAdminClient, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from worker.clock import Clock, SystemClock
from worker.core.topics import TopicInfo
from worker.errors import BrokerAway, Fatal, StreamlabelError, TopicMissing
from worker.kafka_io.connection import connect
from worker.kafka_io.probe import unreachable
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings

Answer = TypeVar("Answer")
Isolation = Literal["read_committed", "read_uncommitted"]

# A new cluster makes its offsets topic at the first question about a group, a new topic elects
# its leaders: "not yet" is an ordinary answer for a few seconds.
_PATIENCE, _PAUSE = 15.0, 0.25  # seconds

_CONFIGS = (
    "max.message.bytes",
    "cleanup.policy",
    "retention.ms",
    "message.timestamp.type",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "min.insync.replicas",
)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a consumer group and its partitions of the topic that was asked about."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[int, ...]


class Admin:
    """Asks the cluster; a context manager.

    Raises:
        BrokerAway, AccessDenied, Fatal: as `connection.connect` does; so does every method.
    """

    def __init__(self, kafka: KafkaSettings, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._client = connect(KafkaAdminClient, kafka)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; safe to call twice."""
        with self._lock:
            self._client.close()

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo | None]:
        """What there is of each topic; None for one that does not exist."""
        asked = list(names)
        described = self._ask(lambda client: client.describe_topics(asked))
        there = {topic["name"]: topic for topic in described if _exists(topic)}
        configs = self._configs([name for name in asked if name in there])
        return {
            name: _info(there[name], configs.get(name, {})) if name in there else None
            for name in asked
        }

    def _configs(self, names: list[str]) -> dict[str, dict[str, Any]]:
        if not names:
            return {}
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, name, configs=list(_CONFIGS)) for name in names
        ]
        told = self._ask(lambda client: _told(client, resources))
        found: dict[str, dict[str, Any]] = told.get("topic", {})
        return found

    def create(self, name: str, partitions: int, replication: int = -1) -> bool:
        """Make a topic and wait until it can be used; False where it was there already.

        Args:
            name: the topic.
            partitions: how many.
            replication: copies; -1 is the broker's default, or 1 where it has none.

        Raises:
            Fatal: the broker refuses; the message has its reason.
        """
        error, reason = self._create(name, partitions, replication)
        if replication == -1 and issubclass(
            error, errors.InvalidReplicationFactorError | errors.UnsupportedVersionError
        ):
            error, reason = self._create(name, partitions, 1)
        if error not in {errors.NoError, errors.TopicAlreadyExistsError}:
            raise _refusal(name, error, reason)
        self._ask(lambda client: client.wait_for_topics([name]))
        return error is errors.NoError

    def _create(self, name: str, partitions: int, replication: int) -> tuple[type[Exception], str]:
        wanted = {name: {"num_partitions": partitions, "replication_factor": replication}}
        answer = self._ask(lambda client: client.create_topics(wanted, raise_errors=False))
        (topic,) = answer["topics"]
        return errors.for_code(topic["error_code"]), topic["error_message"] or ""

    def start_offsets(self, topic: str) -> dict[int, int]:
        """Each partition's first offset that is still kept.

        Raises:
            TopicMissing: there is no such topic.
        """
        return self._offsets(topic, OffsetSpec.EARLIEST, "read_uncommitted")

    def end_offsets(self, topic: str, isolation: Isolation = "read_uncommitted") -> dict[int, int]:
        """The offset that each partition's next record gets.

        Args:
            topic: the topic.
            isolation: `read_committed` stops before the first transaction that is still open.

        Raises:
            TopicMissing: there is no such topic.
        """
        return self._offsets(topic, OffsetSpec.LATEST, isolation)

    def _offsets(self, topic: str, spec: OffsetSpec, isolation: Isolation) -> dict[int, int]:
        info = self.topics([topic])[topic]
        if info is None:
            raise TopicMissing(f"there is no topic {topic!r} (`streamlabel topics create`)")
        wanted = {TopicPartition(topic, number): spec for number in range(info.partitions)}
        level = IsolationLevel.build_from(isolation)
        found = self._ask(lambda client: client.list_partition_offsets(wanted, level))
        return {tp.partition: found[tp].offset for tp in sorted(found)}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The group's committed offset of each partition that has one."""
        found = self._ask(lambda client: client.list_group_offsets({group: None}))
        return {
            tp.partition: at.offset
            for tp, at in sorted(found.get(group, {}).items())
            if tp.topic == topic and at.offset >= 0
        }

    def members(self, group: str, topic: str | None = None) -> list[Member]:
        """Who is in the group now, with their partitions of `topic` (none without it)."""
        described = self._ask(lambda client: _described(client, group))
        return [_member(member, topic) for member in described.get("members", [])]

    def cut_off(self) -> list[str]:
        """A sentence for each broker that sends clients to an address out of reach from here."""
        brokers = self._client._manager.cluster.brokers()  # noqa: SLF001 - there is no public way
        return unreachable((one.node_id, one.host, one.port) for one in brokers)

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        """One call of the client; "not yet" is asked again for a few seconds."""
        give_up = self._clock.monotonic() + _PATIENCE
        while True:
            try:
                with self._lock:
                    return question(self._client)
            except Exception as error:
                meaning = translate(error)
                late = self._clock.monotonic() >= give_up
                if late or not isinstance(meaning, BrokerAway):
                    raise meaning from error
            self._clock.sleep(_PAUSE)


def _exists(topic: dict[str, Any]) -> bool:
    error = errors.for_code(topic["error_code"])
    if error in {errors.UnknownTopicOrPartitionError, errors.InvalidTopicError}:
        return False
    if error not in {errors.NoError, errors.LeaderNotAvailableError}:
        raise translate(error(f"topic {topic['name']!r}"))
    return True


def _told(client: Any, resources: list[ConfigResource]) -> dict[str, Any]:
    """Topics' configurations; an empty one where this client may not read it, or no one can."""
    try:
        answer: dict[str, Any] = client.describe_configs(resources, config_filter="all")
    except (errors.UnsupportedVersionError, errors.AuthorizationError):
        return {}
    return answer


def _info(topic: dict[str, Any], configs: dict[str, Any]) -> TopicInfo:
    partitions = topic["partitions"]

    def told(name: str) -> str | None:
        value: str | None = configs.get(name, {}).get("value")
        return value

    def number(name: str) -> int | None:
        value = told(name)
        return int(value) if value else None

    return TopicInfo(
        partitions=len(partitions),
        replication_factor=max((len(part["replica_nodes"]) for part in partitions), default=0),
        max_message_bytes=number("max.message.bytes"),
        cleanup_policy=told("cleanup.policy"),
        retention_ms=number("retention.ms"),
        timestamp_type=told("message.timestamp.type"),
        timestamp_before_ms=number("message.timestamp.before.max.ms"),
        timestamp_after_ms=number("message.timestamp.after.max.ms"),
        min_insync_replicas=number("min.insync.replicas"),
    )


def _refusal(name: str, error: type[Exception], reason: str) -> StreamlabelError:
    meaning = translate(error(reason))
    # "Invalid topic" means a missing one elsewhere; the one who creates it can't be told to.
    kind = Fatal if isinstance(meaning, TopicMissing) else type(meaning)
    return kind(f"can't create topic {name!r}: {reason or error.__name__}")


def _described(client: Any, group: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.describe_groups([group])[group]
    # The client puts an error into the answer, as text: "[Error 16] NotCoordinatorError: None".
    if told := answer.get("error"):
        name = told.partition("] ")[2].partition(":")[0]
        if name == errors.GroupIdNotFoundError.__name__:  # Kafka 4: nobody was ever in it
            return {}
        raise getattr(errors, name, errors.KafkaError)(told)
    return answer


def _member(member: dict[str, Any], topic: str | None) -> Member:
    assignment = member.get("member_assignment") or {}
    assigned = assignment.get("assigned_partitions", []) if isinstance(assignment, dict) else []
    return Member(
        member_id=member["member_id"],
        client_id=member["client_id"],
        host=member["client_host"].lstrip("/"),
        partitions=tuple(
            sorted(p for one in assigned if one["topic"] == topic for p in one["partitions"])
        ),
    )
