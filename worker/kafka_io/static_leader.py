"""Watches the topics for a group whose leader is a static member that has started again.

Owns: what the group's members have, as its coordinator tells.
Thread: the client's IO thread.
Must not import: inference, runtime.

The leader alone watches for more partitions, and has them assigned. A static member that starts
again within its session gets its partitions back without a rebalance, and the group takes its new
id for that of its leader. The broker names the old id, though, so that the client does not assign
anything, and the client doesn't notice that it leads. Walked through: a topic is deleted; the group
assigns no partitions; the topic is created again, and each worker starts again. Without a leader
that compares the assignment with the topic, they would have no partitions for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kafka.errors import KafkaError

from worker.kafka_io.internals import ConsumerProtocolAssignment, DescribeGroupsRequest

_SUFFIX: Final = 1 + 36  # characters: a dash and a UUID


def is_earlier_self(leader: str, member: str, instance: str | None) -> bool:
    """Return whether the leader's id is one that a static member had before it started again.

    Args:
        leader: id that a broker names as the leader's.
        member: id of this member.
        instance: `group.instance.id` of this member.
    """
    return instance is not None and leader != member and leader[:-_SUFFIX] == instance


async def assigned_partitions(
    manager: Any, coordinator: Any, group: str, topics: Iterable[str]
) -> dict[str, set[int]]:
    """Return topic -> partitions that the group's members have; empty if that is not known.

    Args:
        manager: of the client's connections.
        coordinator: id of the group's coordinator.
        group: id of the group.
        topics: named in any case.
    """
    try:
        response = await manager.send(DescribeGroupsRequest(groups=[group]), node_id=coordinator)
    except KafkaError:
        return {}
    (described,) = response.groups
    if described.error_code or described.group_state != "Stable":
        return {}
    assigned: dict[str, set[int]] = {topic: set() for topic in topics}
    for member in described.members:
        for tp in ConsumerProtocolAssignment.decode(member.member_assignment).partitions():
            assigned.setdefault(tp.topic, set()).add(tp.partition)
    return assigned
