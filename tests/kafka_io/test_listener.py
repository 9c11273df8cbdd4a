"""What the group is made to wait for when partitions are given back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import closing

import pytest
from kafka import TopicPartition

from tests.clocks import HandClock
from worker.core.records import Partition
from worker.kafka_io.listener import Listener


class Drained:
    """Notes when what was drained."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.seen: list[tuple[float, list[Partition]]] = []

    def on_assigned(self, partitions: Mapping[Partition, int]) -> None: ...

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        self.seen.append((self._clock.monotonic(), list(partitions)))

    def on_lost(self, partitions: Iterable[Partition]) -> None: ...

    def on_skipped(self, partition: Partition, offsets: range) -> None: ...


@pytest.mark.parametrize("pause", [0.0, 0.25])
def test_the_next_round_is_joined_a_pause_after_the_drain(pause: float) -> None:
    clock = HandClock()
    began, handler = clock.monotonic(), Drained(clock)
    with closing(Listener(handler, lambda: None, clock, pause)) as listener:

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
    assert handler.seen == [(began, [Partition("in", 0)])]
    assert clock.monotonic() == began + pause
    assert not listener.epochs
