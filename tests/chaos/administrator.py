"""An administrator, who changes a cluster while workers run.

The harness's thread calls it. Each call has a client of its own and gives up soon; it may be
repeated, even if the cluster has done its work already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import (
    AlterConfigOp,
    ConfigResource,
    ConfigResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from kafka.protocol.admin.client_quotas import AlterClientQuotasRequest

from worker.errors import StreamlabelError
from worker.kafka_io.admin import Admin
from worker.settings import KafkaSettings

_REQUEST_MS = 5_000


class PartitionLayout(NamedTuple):
    """The leader of a partition, with its epoch, and the ids of the replicas."""

    leader: int
    epoch: int
    replicas: tuple[int, ...]
    in_sync: frozenset[int]


class Refused(Exception):
    """The cluster did not do it now."""


class Administrator:
    """Changes topics and quotas, and finds coordinators.

    Args:
        servers: addresses without a proxy.
    """

    def __init__(self, servers: str) -> None:
        self._servers = servers

    def partitions(self, topic: str) -> int:
        """Return the number of a topic's partitions."""
        with self._client() as client:
            (described,) = client.describe_topics([topic])
            return len(described["partitions"])

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic at least this number of partitions."""
        if self.partitions(topic) < partitions:
            with self._client() as client:
                client.create_partitions({topic: partitions})

    def topic_id(self, topic: str) -> str:
        """Return the id of a topic."""
        with self._client() as client:
            (described,) = client.describe_topics([topic])
            return str(described["topic_id"])

    def delete(self, topic: str) -> None:
        """Delete a topic, unless that is done."""
        with self._client() as client, contextlib.suppress(UnknownTopicOrPartitionError):
            client.delete_topics([topic], timeout_ms=_REQUEST_MS)

    def create(self, topic: str, partitions: int, group: str) -> None:
        """Create a topic once a group has forgotten its offsets of an earlier one of that name."""
        with _translated(), Admin(KafkaSettings(bootstrap_servers=self._servers)) as admin:
            if admin.topics([topic])[topic] is None and admin.committed(group, topic):
                raise Refused(f"group {group} still has offsets of {topic}")
            admin.create(topic, partitions)

    def configure(self, topic: str, configs: Mapping[str, str | None]) -> None:
        """Set options of a topic; the value None takes the setting back."""
        changes = {
            name: (AlterConfigOp.DELETE, "") if value is None else (AlterConfigOp.SET, value)
            for name, value in configs.items()
        }
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=changes)
        with self._client() as client:
            client.alter_configs([resource])

    def overtake(self, group: str, topic: str, target: int, records: int) -> None:
        """Delete records of one partition: all that the group has read, and this number more.

        Args:
            group: of the workers.
            topic: that they read.
            target: selects the partition.
            records: those that the group has not read.
        """
        with _translated(), Admin(KafkaSettings(bootstrap_servers=self._servers)) as admin:
            starts, ends = admin.start_offsets(topic), admin.end_offsets(topic)
            committed = admin.committed(group, topic)
        number = target % len(ends)
        before = min(ends[number], committed.get(number, 0) + records)
        if before > starts[number]:
            with self._client() as client:
                due = {TopicPartition(topic, number): before}
                client.delete_records(due, timeout_ms=_REQUEST_MS)

    def coordinator(self, group: str) -> int:
        """Return the id of the broker that coordinates the group."""
        with self._client() as client:
            found: Mapping[str, int] = client._manager.run(client._find_coordinator_ids, [group])
            return found[group]

    def layout(self, topic: str, number: int) -> PartitionLayout:
        """Return where a partition is."""
        with self._client() as client:
            (described,) = client.describe_topics([topic])
        (found,) = (one for one in described["partitions"] if one["partition_index"] == number)
        return PartitionLayout(
            found["leader_id"],
            found["leader_epoch"],
            tuple(found["replica_nodes"]),
            frozenset(found["isr_nodes"]),
        )

    def move(self, topic: str, number: int, replicas: Sequence[int]) -> None:
        """Give a partition these replicas, the preferred leader first."""
        tp = TopicPartition(topic, number)
        with self._client() as client:
            if error := client.alter_partition_reassignments({tp: list(replicas)})[tp]:
                raise Refused(str(error))

    def allow_loss(self, topic: str, *, allowed: bool) -> None:
        """Let one replica take records alone, and any replica become leader; or end that."""
        values = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
        operation = "SET" if allowed else "DELETE"
        changes = {name: (operation, value) for name, value in values.items()}
        with self._client() as client:
            client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changes)])

    def committed_epoch(self, group: str, topic: str, number: int) -> int:
        """Return the leader epoch of the group's offset in a partition, -1 if it has none."""
        with self._client() as client:
            offsets = client.list_group_offsets({group: None})[group]
        found = offsets.get(TopicPartition(topic, number))
        return -1 if found is None else int(found.leader_epoch)

    def limit_producers(self, client_id: str, bytes_a_second: float | None) -> None:
        """Set the quota of producers with this client id, at each broker; None removes it."""
        request = AlterClientQuotasRequest
        entity = request.EntryData.EntityData(entity_type="client-id", entity_name=client_id)
        value = request.EntryData.OpData(
            key="producer_byte_rate",
            value=bytes_a_second or 0.0,
            remove=bytes_a_second is None,
        )
        entry = request.EntryData(entity=[entity], ops=[value])
        with self._client() as client:
            client._manager.run(
                client._send_request_to_controller,
                request(entries=[entry], validate_only=False),
                lambda answer: [for_code(one.error_code) for one in answer.entries],
            )

    def set_password(self, user: str, password: str) -> None:
        """Give a user a password for SCRAM; one that has one gets this in its place."""
        mechanism = ScramMechanism.SCRAM_SHA_512
        change = UserScramCredentialUpsertion(user, mechanism, password)
        with self._client() as client:
            answer = client.alter_user_scram_credentials([change])
        if said := answer[user]:
            raise Refused(said)

    def configure_broker(self, number: int, values: Mapping[str, str]) -> None:
        """Set properties of a running broker."""
        resource = ConfigResource(ConfigResourceType.BROKER, str(number), dict(values))
        with self._client() as client:
            answer = client.alter_configs([resource], raise_on_unknown=False)
        if (said := answer["broker"][str(number)]) != "OK":
            raise Refused(said)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        with _translated():
            client = KafkaAdminClient(
                bootstrap_servers=self._servers.split(","), request_timeout_ms=_REQUEST_MS
            )
            with contextlib.closing(client):
                yield client


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (KafkaError, StreamlabelError, RuntimeError) as error:
        raise Refused(str(error)) from error
