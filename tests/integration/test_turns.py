"""Partitions with a backlog share the worker."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.workers import Partitions, clock, flags, produce, wait_until
from worker.kafka_io.source import KafkaSource
from worker.settings import load

pytestmark = pytest.mark.integration

BACKLOG = 400  # records of 1 kB in each partition


@pytest.mark.parametrize("topics", [2], indirect=True)
def test_partitions_with_a_backlog_take_turns(broker: Broker, topics: Topics) -> None:
    """The client returns all fetched records of one partition before those of the next."""
    if broker.kind == "embedded":
        pytest.skip("the embedded broker heeds no limit of a fetch")
    for partition in range(2):
        records = [(b"key", b"x" * 1000)] * BACKLOG
        produce(broker, topics.input, records, partition=partition)
    settings: dict[str, Any] = flags(broker, topics)
    source = KafkaSource(load(settings, environ={}).settings, Partitions(), clock)
    try:
        seen: list[int] = []
        wait_until(
            lambda: (
                seen.extend(r.ref.partition for r in source.poll(0.1, 50))
                or len(seen) == 2 * BACKLOG
            ),
            what="all",
        )
    finally:
        source.close(5)
    assert Counter(seen) == {0: BACKLOG, 1: BACKLOG}
    assert len(set(seen[:BACKLOG])) == 2
