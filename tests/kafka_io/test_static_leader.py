"""The leader of a static group after it restarted: who it is, and what the group has."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from worker.kafka_io.internals import ConsumerProtocolAssignment
from worker.kafka_io.static_leader import assigned_partitions, is_earlier_self

OLD, NEW = (f"slot-1-{digit * 8}-aaaa-bbbb-cccc-dddddddddddd" for digit in "12")


@pytest.mark.parametrize(
    ("leader", "instance", "earlier"),
    [
        (OLD, "slot-1", True),
        (NEW, "slot-1", False),  # a broker that tells the leader that it leads
        (f"slot-1-{OLD}", "slot-1", False),  # of the instance `slot-1-slot-1`
        (OLD.replace("slot-1", "slot-2"), "slot-1", False),
        (OLD, None, False),
        ("", "slot-1", False),
    ],
)
def test_an_earlier_id_of_a_static_member_is_told_from_other_members(
    leader: str, instance: str | None, earlier: bool
) -> None:
    assert is_earlier_self(leader, NEW, instance) is earlier


class _Manager:
    """Answers with the assignments of a group's members, or fails."""

    def __init__(self, members: list[Any], state: str, error: int) -> None:
        self._members, self._state, self._error = members, state, error
        self.asked: list[tuple[list[str], int]] = []

    async def send(self, request: Any, node_id: int) -> Any:
        self.asked.append((request.groups, node_id))
        if not self._state:
            raise KafkaTimeoutError
        group = SimpleNamespace(
            error_code=self._error, group_state=self._state, members=self._members
        )
        return SimpleNamespace(groups=[group])


def _member(*assigned: tuple[str, list[int]]) -> Any:
    encoded = ConsumerProtocolAssignment(0, list(assigned), b"").encode()
    return SimpleNamespace(member_assignment=encoded)


@pytest.mark.parametrize(
    ("state", "error", "found"),
    [
        ("Stable", 0, {"a": {0, 1, 2}, "b": {0}, "c": set()}),
        ("PreparingRebalance", 0, {}),  # its members' assignments are not told then
        ("Stable", 16, {}),  # NOT_COORDINATOR
        ("", 0, {}),
    ],
)
def test_the_partitions_of_all_members_are_added_up(
    state: str, error: int, found: dict[str, set[int]]
) -> None:
    members = [_member(("a", [0, 2])), _member(("a", [1]), ("b", [0])), _member()]
    manager = _Manager(members, state, error)
    assert asyncio.run(assigned_partitions(manager, 3, "group", ["a", "c"])) == found
    assert manager.asked == [(["group"], 3)]
