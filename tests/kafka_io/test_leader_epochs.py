"""Offsets of a log that was truncated: they name other records than the group has read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.protocol.broker_version_data import BrokerVersionData

from worker.core.records import Partition
from worker.kafka_io.conversion import commit_request
from worker.kafka_io.group_offsets import CommittedOffset
from worker.kafka_io.leader_epochs import UNKNOWN, LeaderEpochs, unknown_epoch
from worker.kafka_io.membership import _Coordinator

P, TP = Partition("in", 0), TopicPartition("in", 0)


def polled(*records: tuple[int, int]) -> dict[TopicPartition, list[Any]]:
    return {TP: [SimpleNamespace(offset=offset, leader_epoch=epoch) for offset, epoch in records]}


def noted(*polls: dict[TopicPartition, list[Any]]) -> LeaderEpochs:
    epochs = LeaderEpochs()
    for one in polls:
        epochs.note(one)
    return epochs


@pytest.mark.parametrize(
    ("polls", "expected"),
    [
        ([], {0: UNKNOWN}),
        ([polled((5, 2), (9, 2))], {4: UNKNOWN, 5: 2, 9: 2, 10: 2}),
        ([polled((5, 2), (6, 3), (7, 3))], {5: 2, 6: 3, 7: 3}),
        ([polled((5, 2)), polled((6, 2)), polled((8, 4))], {5: 2, 7: 2, 8: 4}),
        # Offset 6 was lost, and another leader wrote it again.
        ([polled((5, 2)), polled((6, 2), (7, 2)), polled((6, 4))], {5: 2, 6: 4, 7: 4}),
        # The position went back within the log.
        ([polled((5, 2), (8, 4)), polled((3, 2), (8, 4))], {3: 2, 7: 2, 8: 4}),
        ([polled((5, 2), (8, 4)), polled((6, 2))], {5: 2, 8: 2}),
        # Another topic has the name now.
        ([polled((5, 2)), polled((0, 0))], {0: 0, 5: 0}),
    ],
)
def test_a_record_has_the_epoch_of_the_leader_that_wrote_it(
    polls: list[dict[TopicPartition, list[Any]]], expected: dict[int, int]
) -> None:
    epochs = noted(*polls)
    assert {offset: epochs.of(P, offset) for offset in expected} == expected


@pytest.mark.parametrize(
    ("polls", "position", "expected"),
    [
        # Offset 100 is a marker.
        ([polled((99, 5))], (101, 6), {99: 5, 100: 6}),
        ([polled((99, 5))], (101, 5), {99: 5, 100: 5}),
        ([polled((99, 5))], (100, 5), {99: 5}),
        ([polled((99, 5))], (101, UNKNOWN), {99: 5, 100: 5}),
        ([], (7, 2), {5: UNKNOWN, 6: 2}),  # the group's offset
        ([], (0, UNKNOWN), {0: UNKNOWN}),
        # Record 6 was returned to its partition: the position has its epoch.
        ([polled((5, 2), (6, 3))], (6, 3), {5: 2, 6: 3}),
    ],
)
def test_what_is_between_the_last_record_and_the_position_has_an_epoch(
    polls: list[dict[TopicPartition, list[Any]]],
    position: tuple[int, int],
    expected: dict[int, int],
) -> None:
    """A broker would take the epoch of the last record for that of a log that was truncated."""
    epochs = noted(*polls)
    offset, epoch = position
    epochs.reach({TP: OffsetAndMetadata(offset, "", epoch)})
    assert {offset: epochs.of(P, offset) for offset in expected} == expected


def test_old_epochs_are_forgotten() -> None:
    epochs = noted(*(polled((n, n)) for n in range(1_000)))
    assert (epochs.of(P, 999), epochs.of(P, 984), epochs.of(P, 900)) == (999, 984, UNKNOWN)


def test_an_offset_is_committed_with_the_epoch_of_the_record_before_it() -> None:
    epochs = noted(polled((5, 2), (6, 3)))
    for offset, epoch in ((5, UNKNOWN), (6, 2), (7, 3)):
        request = commit_request({P: offset}, lambda _: "note", epochs.of)
        assert request == {TP: OffsetAndMetadata(offset, "note", epoch)}
    assert commit_request({P: 7}) == {TP: OffsetAndMetadata(7, "", unknown_epoch(P, 6))}


@pytest.mark.parametrize(
    ("committed", "offset", "epoch", "covered"),
    [
        (CommittedOffset(-1), 0, 1, False),
        (CommittedOffset(7, 2), 6, 2, True),
        (CommittedOffset(7, 2), 6, 1, True),
        (CommittedOffset(7, 2), 6, UNKNOWN, True),
        (CommittedOffset(7), 6, 3, True),
        (CommittedOffset(7, 2), 7, 2, False),
        (CommittedOffset(7, 2), 6, 3, False),  # the record before offset 7 is lost
    ],
)
def test_an_offset_of_a_lost_log_covers_no_record_of_a_later_leader(
    committed: CommittedOffset, offset: int, epoch: int, covered: bool
) -> None:
    assert committed.covers(offset, epoch) is covered


class _Subscription:
    def __init__(self) -> None:
        self.positions: dict[TopicPartition, Any] = {}

    def missing_fetch_positions(self) -> set[TopicPartition]:
        return {TP}

    def seek(self, tp: TopicPartition, to: Any) -> None:
        self.positions[tp] = to


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("compares", [True, False])
def test_a_position_keeps_the_epoch_of_the_committed_offset(
    monkeypatch: pytest.MonkeyPatch, compares: bool, answered: bool
) -> None:
    """So the client compares it with the log before it reads from there, if a broker can."""
    coordinator = object.__new__(_Coordinator)
    apis = {23: (0, 4)} if compares else {}
    coordinator._manager = SimpleNamespace(broker_version_data=BrokerVersionData((4, 0), apis))
    coordinator._subscription = _Subscription()
    committed = {TP: OffsetAndMetadata(7, "note", 2)}

    async def fetch(_: Any, tps: set[TopicPartition], timeout_ms: float | None) -> Any:
        if not answered:
            raise KafkaTimeoutError
        return {tp: committed[tp] for tp in tps}

    monkeypatch.setattr(_Coordinator, "fetch_committed_offsets_async", fetch)
    done = asyncio.run(coordinator.refresh_committed_offsets_if_needed_async(5.0))
    assert done is answered
    expected = committed if compares else {TP: 7}
    assert coordinator._subscription.positions == (expected if answered else {})
