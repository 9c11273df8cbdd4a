"""Schemas of a registry, from the records of the input to the results, on a real registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest
from kafka import KafkaProducer

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.registry import ApicurioRegistry
from tests.support.workers import (
    WorkerProcess,
    WorkerThread,
    audit,
    check,
    count,
    produce,
    read,
    running,
    wait_until,
)
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.errors import SchemaRefused

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

POST: dict[str, Any] = {
    "type": "record",
    "name": "Post",
    "fields": [{"name": "id", "type": "string"}, {"name": "text", "type": ["null", "string"]}],
}
EXACTLY_ONCE = {"delivery": "exactly_once"}


class Writer:
    """Sends Avro records of one schema, as Confluent's serializer frames them."""

    def __init__(self, registry: ApicurioRegistry, topic: str, *more: Mapping[str, Any]) -> None:
        schema = POST | {"fields": [*POST["fields"], *more]}
        self.id = registry.register(f"{topic}-value", json.dumps(schema))
        self._schema = fastavro.parse_schema(schema)

    def value(self, number: int, **more: Any) -> bytes:
        body = BytesIO()
        post = {"id": str(number), "text": f"post {number}"} | more
        fastavro.schemaless_writer(body, self._schema, post)
        return b"\0" + self.id.to_bytes(4, "big") + body.getvalue()


def send(broker: Broker, topic: str, partition: int, *values: bytes | None) -> None:
    produce(broker, topic, [(b"k", value) for value in values], partition=partition)


def send_in_one_batch(broker: Broker, topic: str, values: Sequence[bytes]) -> None:
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","),
        compression_type="gzip",
        linger_ms=1000,
    )
    for value in values:
        producer.send(topic, value, partition=0)
    producer.flush(30)
    producer.close()


def options(registry: ApicurioRegistry, **more: Any) -> dict[str, Any]:
    return {"input__format": "avro", "registry__url": registry.url, "registry__timeout": 1} | more


def outcomes(broker: Broker, topics: Topics) -> list[tuple[int, str]]:
    """Return partition and id of each result, in order."""
    results = read(broker, topics.output, topics.partitions)
    found = [(one.partition, json.loads(one.value)) for one in results]
    return [(partition, result["message_id"]) for partition, result in found]


def decoded(registry: ApicurioRegistry, value: bytes) -> dict[str, Any]:
    """Return an Avro value as its own schema reads it."""
    answer = registry.ask("GET", f"/schemas/ids/{int.from_bytes(value[1:5], 'big')}")
    schema = fastavro.parse_schema(json.loads(answer["schema"]))
    found = fastavro.schemaless_reader(BytesIO(value[5:]), schema, None)
    assert isinstance(found, dict)
    return found


def labelled(worker: WorkerThread, number: int) -> None:
    wait_until(lambda: worker.published >= number, what=f"{number} records are labelled")


def waits(worker: WorkerThread, partitions: int = 1) -> None:
    """Wait until partitions are held and the registry is known to be away."""

    def away() -> bool:
        held = worker.value("streamlabel_waiting_partitions")
        return held == partitions and "registry" in worker.progress.ready()[1]

    wait_until(away, what=f"{partitions} partitions wait for the registry")


def verdict(broker: Broker, topics: Topics, records: int) -> dict[str, Any]:
    """Return the audit's report, once everything is committed."""
    wait_until(lambda: audit(broker, topics)["pending"] == 0, what="all is committed")
    report = audit(broker, topics)
    assert report["holds"], report
    assert (report["consumed"], report["duplicated"], report["dead_lettered"]) == (records, 0, 0)
    return report


# -- reading and writing -------------------------------------------------------------------------


def test_avro_is_read_and_json_written(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    writer = Writer(registry, topics.input)
    send(broker, topics.input, 0, *map(writer.value, range(20)))
    with running(broker, topics, **options(registry)) as worker:
        labelled(worker, 20)
    assert outcomes(broker, topics) == [(0, str(n)) for n in range(20)]


@pytest.mark.parametrize("given", ["json", "avro"])
def test_results_are_written_as_avro(
    broker: Broker, topics: Topics, registry: ApicurioRegistry, given: str
) -> None:
    writer = Writer(registry, topics.input)
    value = writer.value(7) if given == "avro" else b'{"id": 7, "text": "post 7"}'
    send(broker, topics.input, 0, value)
    more = {"output__format": "avro", "input__format": given}
    with running(broker, topics, **options(registry, **more)) as worker:
        labelled(worker, 1)
    (result,) = read(broker, topics.output, topics.partitions)
    found = decoded(registry, result.value)
    assert (found["message_id"], found["label"]) == ("7", "POSITIVE")
    assert registry.ask("GET", f"/subjects/{topics.output}-value/versions") == [1]


@pytest.mark.parametrize("register", [True, False])
def test_a_result_is_added_to_the_bytes_of_an_avro_record(
    broker: Broker, topics: Topics, registry: ApicurioRegistry, register: bool
) -> None:
    """The writer's bytes stay as they are, and the enriched schema has one more field."""
    writer = Writer(registry, topics.input, {"name": "at", "type": "long", "default": 0})
    value = writer.value(3, at=17)
    send(broker, topics.input, 0, value)
    more = {"output__format": "avro", "output__mode": "enrich"}
    with running(broker, topics, **options(registry, **more)) as worker:
        labelled(worker, 1)
    if not register:  # the schema is there now, so it need only be looked up
        send(broker, topics.input, 0, value)
        more["registry__register"] = False
        with running(broker, topics, **options(registry, **more)) as worker:
            labelled(worker, 1)
    for result in read(broker, topics.output, topics.partitions):
        assert result.value[5:].startswith(value[5:])
        found = decoded(registry, result.value)
        assert list(found) == ["id", "text", "at", "classification"]
        assert (found["at"], found["classification"]["label"]) == (17, "POSITIVE")


def test_each_record_is_read_by_its_own_writers_schema(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    """Old and new schemas alternate within a compressed batch, in which a hold begins."""
    old = Writer(registry, topics.input)
    send(broker, topics.input, 0, *map(old.value, range(10)))
    with running(broker, topics, **options(registry, **EXACTLY_ONCE)) as worker:
        labelled(worker, 10)
        new = Writer(registry, topics.input, {"name": "at", "type": "long", "default": 0})
        mixed = [new.value(n, at=n) if n % 2 else old.value(n) for n in range(10, 50)]
        send_in_one_batch(broker, topics.input, mixed)
        labelled(worker, 50)
        verdict(broker, topics, 50)
    assert outcomes(broker, topics) == [(0, str(n)) for n in range(50)]


def test_framed_and_plain_values_are_read_from_one_topic(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    writer = Writer(registry, topics.input)
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    number = registry.register(f"{topics.input}-json-value", json.dumps(schema), "JSON")
    plain = b'{"id": "2", "text": "plain"}'
    framed = b"\0" + number.to_bytes(4, "big") + b'{"id": "3", "text": "with a schema"}'
    send(broker, topics.input, 0, writer.value(1), plain, framed, None, writer.value(4))
    with running(broker, topics, **options(registry, input__format="auto")) as worker:
        labelled(worker, 4)
    assert [one for _, one in outcomes(broker, topics)] == ["1", "2", "3", "4"]


def test_an_unknown_id_becomes_a_dead_letter_with_the_bytes_of_its_record(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    writer = Writer(registry, topics.input)
    unknown = b"\0\0\xff\xff\xff" + b"body"
    send(broker, topics.input, 0, writer.value(0), unknown, writer.value(1))
    with running(broker, topics, **options(registry)) as worker:
        labelled(worker, 2)
        wait_until(lambda: bool(read(broker, topics.dead, 3)), what="there is a dead letter")
    (dead,) = read(broker, topics.dead, topics.partitions)
    assert dead.value == unknown
    context = json.loads(dict(dead.headers)[DEAD_LETTER_HEADER])
    assert context["reason"] == "unknown_schema"
    assert str(0xFFFFFF) in context["message"]


# -- the registry is away ------------------------------------------------------------------------


@pytest.fixture(params=["kill", "freeze"])
def outage(
    request: pytest.FixtureRequest, breakable_registry: ApicurioRegistry
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return the functions that begin and end an outage."""
    if request.param == "kill":
        return breakable_registry.kill, breakable_registry.start
    return breakable_registry.freeze, breakable_registry.thaw


def test_known_schemas_go_on_and_an_unknown_one_waits_while_the_registry_is_away(
    broker: Broker,
    topics: Topics,
    breakable_registry: ApicurioRegistry,
    outage: tuple[Callable[[], None], Callable[[], None]],
) -> None:
    """The worker loses and repeats no record, makes no dead letter, and stays in its group."""
    begin, end = outage
    known = Writer(breakable_registry, topics.input)
    new = Writer(breakable_registry, topics.input, {"name": "at", "type": "long", "default": 0})
    send(broker, topics.input, 0, *map(known.value, range(10)))
    with running(broker, topics, **options(breakable_registry, **EXACTLY_ONCE)) as worker:
        labelled(worker, 10)
        begin()
        before = worker.value("streamlabel_rebalances_total", kind="assigned")
        send(broker, topics.input, 1, known.value(100), new.value(101, at=1), known.value(102))
        waits(worker)
        labelled(worker, 11)
        assert worker.progress.live()[0]
        send(broker, topics.input, 0, *map(known.value, range(10, 20)))
        labelled(worker, 21)
        lag = {"topic": topics.input, "partition": "1"}
        wait_until(lambda: worker.value("streamlabel_offset_lag", **lag) >= 2, what="lag is seen")
        send(broker, topics.input, 1, new.value(103, at=2))
        wait_until(lambda: worker.value("streamlabel_offset_lag", **lag) >= 3, what="lag grows")
        assert worker.value("streamlabel_rebalances_total", kind="assigned") == before
        end()
        labelled(worker, 24)
        wait_until(lambda: worker.progress.ready()[0], what="it is ready again")
        verdict(broker, topics, 24)
    assert outcomes(broker, topics) == [
        *((0, str(n)) for n in range(20)),
        *((1, str(n)) for n in range(100, 104)),
    ]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_registry_that_is_away_from_the_first_record_on_loses_nothing(
    broker: Broker, topics: Topics, breakable_registry: ApicurioRegistry, delivery: str
) -> None:
    writer = Writer(breakable_registry, topics.input)
    for partition in range(topics.partitions):
        send(broker, topics.input, partition, *map(writer.value, range(10)))
    breakable_registry.kill()
    with running(broker, topics, **options(breakable_registry, delivery=delivery)) as worker:
        waits(worker, topics.partitions)
        assert worker.published == 0
        assert worker.value("streamlabel_records_consumed_total") == 0
        breakable_registry.start()
        labelled(worker, 30)
        verdict(broker, topics, 30)
    assert worker.value("streamlabel_records_consumed_total") == 30


def test_a_group_that_begins_at_the_end_labels_what_came_while_the_registry_was_away(
    broker: Broker, topics: Topics, breakable_registry: ApicurioRegistry
) -> None:
    writer = Writer(breakable_registry, topics.input)
    send(broker, topics.input, 0, *map(writer.value, range(5)))
    more = EXACTLY_ONCE | {"input__start": "latest"}
    breakable_registry.kill()
    with running(broker, topics, **options(breakable_registry, **more)) as worker:
        begun = "streamlabel_partitions_begun_total"
        wait_until(lambda: worker.value(begun) == topics.partitions, what="it begins")
        send(broker, topics.input, 0, *map(writer.value, range(5, 8)))
        waits(worker)
    with running(broker, topics, **options(breakable_registry, **more)) as worker:
        waits(worker)
        breakable_registry.start()
        labelled(worker, 3)
    assert outcomes(broker, topics) == [(0, str(n)) for n in range(5, 8)]


def test_partitions_that_wait_can_move_to_another_worker(
    broker: Broker, topics: Topics, breakable_registry: ApicurioRegistry
) -> None:
    """The new owner begins at the committed offset, which is that of the record that waits."""
    known = Writer(breakable_registry, topics.input)
    new = Writer(breakable_registry, topics.input, {"name": "at", "type": "long", "default": 0})
    for partition in range(topics.partitions):
        send(broker, topics.input, partition, *map(known.value, range(10)))
    settings = options(breakable_registry, **EXACTLY_ONCE)
    with running(broker, topics, **settings) as first:
        labelled(first, 30)
        breakable_registry.kill()
        for partition in range(topics.partitions):
            values = [new.value(n, at=n) for n in range(10, 20)]
            send(broker, topics.input, partition, known.value(9), *values)
        waits(first, topics.partitions)
        labelled(first, 33)
        with running(broker, topics, **settings) as second:
            wait_until(lambda: second.value("streamlabel_waiting_partitions") >= 1, what="it takes")
            held = [one.value("streamlabel_waiting_partitions") for one in (first, second)]
            assert sum(held) >= topics.partitions
            breakable_registry.start()
            wait_until(lambda: first.published + second.published >= 63, what="all is labelled")
            verdict(broker, topics, 63)
            assert second.published >= 10


def test_a_stop_does_not_wait_for_the_registry(
    broker: Broker, topics: Topics, breakable_registry: ApicurioRegistry, tmp_path: Path
) -> None:
    """A request is under way that would last for minutes."""
    writer = Writer(breakable_registry, topics.input)
    send(broker, topics.input, 0, *map(writer.value, range(10)))
    breakable_registry.freeze()
    worker = WorkerProcess(
        *(broker, topics, make_checkpoint(tmp_path / "model"), tmp_path / "log"),
        *("--input-format", "avro", "--registry-url", breakable_registry.url),
        *("--registry-timeout", "300", "--shutdown-timeout", "100"),
    )
    try:
        waiting = "streamlabel_waiting_partitions"
        wait_until(lambda: worker.metric(waiting) == 1, 120, "a partition waits")
        assert worker.stop(60) == 0, worker.log.read_text()
    finally:
        worker.kill()
    assert count(broker, topics) == 0


# -- the start -----------------------------------------------------------------------------------


def test_a_worker_waits_for_a_registry_that_is_away_when_it_starts(
    broker: Broker, topics: Topics, breakable_registry: ApicurioRegistry
) -> None:
    """It can't register the schema of its results yet, and does not join the group."""
    writer = Writer(breakable_registry, topics.input)
    send(broker, topics.input, 0, *map(writer.value, range(3)))
    breakable_registry.kill()
    with running(broker, topics, **options(breakable_registry, output__format="avro")) as worker:
        wait_until(lambda: "registry" in worker.progress.ready()[1], what="it says so")
        assert worker.progress.live()[0]
        breakable_registry.start()
        labelled(worker, 3)


def test_a_refused_schema_of_results_stops_the_start(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    registry.register(f"{topics.output}-value", '{"type": "record", "name": "A", "fields": []}')
    registry.ask("PUT", f"/config/{topics.output}-value", {"compatibility": "FULL"})
    with running(broker, topics, **options(registry, output__format="avro")) as worker:
        worker.join()
    assert isinstance(worker.error, SchemaRefused)
    assert f"{topics.output}-value" in str(worker.error)


def test_results_whose_schema_may_only_be_looked_up_and_is_not_there_stop_the_start(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    more = {"output__format": "avro", "registry__register": False}
    with running(broker, topics, **options(registry, **more)) as worker:
        worker.join()
    assert isinstance(worker.error, SchemaRefused)
    assert "registry.register" in str(worker.error)


def test_check_reads_a_sample_by_its_schemas_and_registers_nothing(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    writer = Writer(registry, topics.input)
    send(broker, topics.input, 0, *map(writer.value, range(3)))
    more = ("--input-format", "avro", "--output-format", "avro", "--registry-url", registry.url)
    said = check(broker, topics, *more)
    assert f"registry: {registry.url} answers" in said
    assert f"will be registered under subject '{topics.output}-value'" in said
    assert "text found in 3 of 3" in said
    assert f"{topics.output}-value" not in registry.ask("GET", "/subjects")


def test_each_process_of_a_pool_asks_the_registry(
    broker: Broker, topics: Topics, registry: ApicurioRegistry, tmp_path: Path
) -> None:
    writer = Writer(registry, topics.input)
    for partition in range(topics.partitions):
        send(broker, topics.input, partition, *map(writer.value, range(10)))
    pool = WorkerProcess(
        *(broker, topics, make_checkpoint(tmp_path / "model"), tmp_path / "log"),
        *("--processes", "2", "--input-format", "avro", "--output-format", "avro"),
        *("--registry-url", registry.url),
    )
    try:
        wait_until(lambda: pool.published >= 30, 180, "everything is labelled")
        assert pool.stop() == 0, pool.log.read_text()
    finally:
        pool.kill()
    values = [one.value for one in read(broker, topics.output, topics.partitions)]
    assert len([decoded(registry, value) for value in values]) == 30
