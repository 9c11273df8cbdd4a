"""Topics that get more partitions while a worker runs, and groups that get more workers."""

from __future__ import annotations

from typing import Any

import pytest
from kafka import KafkaAdminClient

from schemas import Classification
from tests.conftest import Broker, Topics
from tests.integration.test_progress import MODES, begun
from tests.support.workers import (
    Partitions,
    audit,
    clock,
    count,
    flags,
    lag,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.kafka_io.source import KafkaSource
from worker.settings import load

pytestmark = pytest.mark.integration

SOON: dict[str, Any] = {"kafka__metadata_max_age": 1}


def places(broker: Broker, topics: Topics, partitions: int) -> dict[int, list[int]]:
    """Map each input partition to the output partitions of its results, in their order."""
    found: dict[int, dict[int, int]] = {}
    for result in read(broker, topics.output, partitions):
        source = Classification.model_validate_json(result.value).source
        found.setdefault(source.partition, {})[source.offset] = result.partition
    return {origin: [at for _, at in sorted(offsets.items())] for origin, offsets in found.items()}


@pytest.mark.parametrize("topics", [1], indirect=True)
@pytest.mark.parametrize("delivery", MODES)
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_added_partitions_are_read_from_their_start_and_written_to(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, delivery: str, start: str
) -> None:
    """In order, and from their start even if the group starts at the end."""
    produce(broker, topics.input, texts(5))
    more: dict[str, Any] = {"delivery": delivery, "input__start": start} | SOON
    before = 5 if start == "earliest" else 0
    with running(broker, topics, **more) as worker:
        begun(broker, topics)
        wait_until(lambda: worker.published == before, what="the old partition is done")
        admin.create_partitions(dict.fromkeys((topics.input, topics.output, topics.dead), 3))
        admin.wait_for_topics([topics.input, topics.output, topics.dead])
        for partition in range(3):
            produce(broker, topics.input, texts(10), partition=partition)
        wait_until(lambda: worker.published == before + 30, 20, "all partitions are read")

        def spread() -> bool:
            for partition in range(3):
                produce(broker, topics.input, texts(1), partition=partition)
            found = places(broker, topics, 3)
            return [found[origin][-1] for origin in range(3)] == [0, 1, 2]

        wait_until(spread, 20, "results go to all partitions")
        wait_until(lambda: lag(broker, topics) == 0, 20, "all is committed")
    found = places(broker, topics, 3)
    assert all(places == sorted(places) for places in found.values()), "back in the old place"
    verdict = audit(broker, topics, "--delivery", delivery, "--input-start", start)
    assert verdict["holds"], verdict
    assert (verdict["duplicated"], verdict["pending"]) == (0, 0), verdict


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_join_that_ends_between_two_polls_is_completed(
    broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    """The client believed the partitions assigned and sent no heartbeats for 45 seconds."""
    options = flags(broker, topics) | {"kafka.metadata_max_age": 1}
    handler = Partitions()
    source = KafkaSource(load(options, environ={}).settings, handler, clock)
    try:
        wait_until(lambda: source.poll(0.1, 1) == [] and len(handler.owned) == 1, what="it is in")
        admin.create_partitions({topics.input: 3})
        consumer = source._consumer
        wait_until(
            lambda: (
                consumer.poll(timeout_ms=1) == {}
                and (consumer._coordinator._join_task is not None or len(handler.owned) == 3)
            ),
            what="a join has begun",
        )
        clock.sleep(1)  # the join ends meanwhile
        wait_until(lambda: source.poll(0.1, 1) == [] and len(handler.owned) == 3, 20, "it has all")
    finally:
        source.close(5)


def test_workers_that_begin_a_group_together_all_begin_at_the_end(
    broker: Broker, topics: Topics
) -> None:
    """The first commit of one must not make the other take its partitions for added later."""
    for partition in range(3):
        produce(broker, topics.input, texts(20), partition=partition)
    latest: dict[str, Any] = {"input__start": "latest"}
    with running(broker, topics, **latest) as one, running(broker, topics, **latest) as other:
        wait_until(lambda: one.progress.ready()[0] and other.progress.ready()[0], what="both in")
        begun(broker, topics)
        for partition in range(3):
            produce(broker, topics.input, texts(1), partition=partition)
        wait_until(lambda: count(broker, topics) >= 3, what="the new records are labelled")
    assert one.published + other.published == count(broker, topics) == 3
