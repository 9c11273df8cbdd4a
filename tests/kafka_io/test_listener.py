"""Listener: the group waits for the drain of revoked partitions, and for a pause after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import closing

import pytest
from kafka import TopicPartition

from tests.support.clocks import HandClock
from tests.support.workers import Partitions
from worker.core.records import Partition
from worker.kafka_io.listener import Listener


def assign_and_revoke(listener: Listener) -> None:
    """Assign and revoke a partition, as the client does."""

    async def rebalance() -> None:
        await listener.on_partitions_assigned([TopicPartition("in", 0)])
        revoked = listener.on_partitions_revoked([TopicPartition("in", 0)])
        # The client awaits its futures in its own loop; here asyncio runs each step.
        while True:
            try:
                revoked.send(None)
            except StopIteration:
                return
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(rebalance(), 10))


@pytest.mark.parametrize("pause", [0.0, 0.25])
def test_the_client_joins_again_a_pause_after_the_drain(pause: float) -> None:
    clock = HandClock()
    started, handler = clock.monotonic(), Partitions()
    with closing(Listener(handler, lambda: None, clock, pause)) as listener:
        assign_and_revoke(listener)
    assert (handler.told, handler.owned) == (["assigned", "revoking"], set())
    assert clock.monotonic() == started + pause
    assert not listener.epochs


def test_a_partition_is_released_even_if_its_drain_failed() -> None:
    """Another worker gets it, so records that were polled here must not be published."""

    class Broken(Partitions):
        def on_revoked(self, partitions: Iterable[Partition]) -> None:
            raise RuntimeError("broken")

    with closing(Listener(Broken(), lambda: None, HandClock(), 0.0)) as listener:
        with pytest.raises(RuntimeError, match="broken"):
            assign_and_revoke(listener)
        assert not listener.epochs
