"""What the group is made to wait for when partitions are given back."""

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


def come_and_go(listener: Listener) -> None:
    """A partition is assigned and revoked, as the client does it."""

    async def rebalance() -> None:
        await listener.on_partitions_assigned([TopicPartition("in", 0)])
        revoked = listener.on_partitions_revoked([TopicPartition("in", 0)])
        # The client awaits its own futures in its own loop; here each step is one of asyncio's.
        while True:
            try:
                revoked.send(None)
            except StopIteration:
                return
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(rebalance(), 10))


@pytest.mark.parametrize("pause", [0.0, 0.25])
def test_the_next_round_is_joined_a_pause_after_the_drain(pause: float) -> None:
    clock = HandClock()
    began, handler = clock.monotonic(), Partitions()
    with closing(Listener(handler, lambda: None, clock, pause)) as listener:
        come_and_go(listener)
    assert (handler.told, handler.owned) == (["assigned", "revoking"], set())
    assert clock.monotonic() == began + pause
    assert not listener.epochs


def test_a_partition_is_let_go_whatever_became_of_its_drain() -> None:
    """Another worker gets it: what was polled here must not be published under it any more."""

    class Broken(Partitions):
        def on_revoked(self, partitions: Iterable[Partition]) -> None:
            raise RuntimeError("broken")

    with closing(Listener(Broken(), lambda: None, HandClock(), 0.0)) as listener:
        with pytest.raises(RuntimeError, match="broken"):
            come_and_go(listener)
        assert not listener.epochs
