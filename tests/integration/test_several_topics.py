"""Several input topics: a list, a pattern, topics that come and go, and an output for each."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient
from structlog.testing import capture_logs

from schemas import Classification
from tests.conftest import Broker
from tests.integration.test_progress import MODES
from tests.support.registry import ApicurioRegistry
from tests.support.workers import (
    ObedientModel,
    WorkerThread,
    ask,
    clock,
    delete_topic,
    needs_kafka,
    produce,
    read,
    texts,
    wait_until,
)
from worker.cli.main import main
from worker.cli.verdicts import attempt
from worker.core.records import Partition
from worker.errors import Fatal, TopicMissing
from worker.kafka_io.rights import try_rights
from worker.runtime.topics import require
from worker.settings import load

pytestmark = pytest.mark.integration

# Warnings about time, which a busy machine may well cause.
OF_A_SLOW_MACHINE = ("joining group is slow", "a broker's response is late")


class Place:
    """A prefix of topic names, used by one test only, and the settings of its workers."""

    def __init__(self, broker: Broker, admin: KafkaAdminClient) -> None:
        self.broker, self.admin = broker, admin
        self.name = f"several-{uuid.uuid4().hex[:8]}"
        self.settings: dict[str, Any] = {
            "kafka.bootstrap_servers": broker.bootstrap_servers,
            "kafka.group_id": self.name,
            "kafka.metadata_max_age": 1,
            "output.topic": self("out"),
            "output.dead_letter_topic": self("dead"),
            "create_topics": True,
        }

    def __call__(self, name: str) -> str:
        return f"{self.name}.{name}"

    def lists(self, *names: str, **more: Any) -> dict[str, Any]:
        """Return settings with a list of inputs."""
        return self._with({"input.topics": ",".join(map(self, names))}, more)

    def matches(self, pattern: str, **more: Any) -> dict[str, Any]:
        """Return settings with a pattern behind the prefix."""
        return self._with({"input.topic_pattern": rf"{self.name}\.{pattern}"}, more)

    def _with(self, inputs: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        return self.settings | inputs | {k.replace("__", "."): v for k, v in more.items()}

    def create(self, *names: str, partitions: int = 2) -> None:
        self.admin.create_topics({self(one): {"num_partitions": partitions} for one in names})
        self.admin.wait_for_topics([self(one) for one in names])

    def delete(self, name: str) -> None:
        delete_topic(self.admin, self(name))

    def produce(self, name: str, number: int, start: int = 0, partitions: int = 2) -> None:
        """Send so many texts to each partition."""
        for partition in range(partitions):
            produce(self.broker, self(name), texts(number, start), partition=partition)

    def results(self, output: str = "out", partitions: int = 2) -> dict[Partition, list[int]]:
        """Return the offsets of results by input partition, in the order of the output."""
        found: dict[Partition, list[int]] = {}
        for result in read(self.broker, self(output), partitions):
            source = Classification.model_validate_json(result.value).source
            assert result.partition == source.partition % partitions
            found.setdefault(Partition(source.topic, source.partition), []).append(source.offset)
        return found

    def expect(self, numbers: dict[str, int], output: str = "out", partitions: int = 2) -> None:
        """Wait for the results of so many records in each partition of these inputs, in order."""
        wanted = {
            Partition(self(name), n): list(range(number))
            for name, number in numbers.items()
            for n in range(partitions)
        }
        wait_until(lambda: self.results(output, partitions) == wanted, what=f"results {numbers}")

    def lag(self, *names: str) -> int:
        with ask(self.broker) as admin:
            at = admin.all_committed(self.name)
            return sum(
                end - at.get(Partition(self(name), number), 0)
                for name in names
                for number, end in admin.end_offsets(self(name)).items()
            )


@pytest.fixture
def place(broker: Broker, admin: KafkaAdminClient) -> Iterator[Place]:
    needs_kafka(broker, "has no ids of topics")
    made = Place(broker, admin)
    yield made
    admin.delete_topics(
        [one for one in admin.list_topics() if one.startswith(made.name)], raise_errors=False
    )


Start = Callable[[dict[str, Any]], WorkerThread]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a worker with these settings."""
    workers: list[WorkerThread] = []

    def run(settings: dict[str, Any]) -> WorkerThread:
        model = ObedientModel()
        workers.append(WorkerThread(load(settings, environ={}).settings, model, model))
        return workers[-1]

    yield run
    for worker in workers:
        worker.stop_event.set()
    for worker in workers:
        worker.join()


def command(capsys: pytest.CaptureFixture[str], settings: dict[str, Any], *words: str) -> str:
    """Return the output of a command of `streamlabel`."""
    capsys.readouterr()
    flags = [f"--{path.replace('.', '-').replace('_', '-')}={settings[path]}" for path in settings]
    shared = ("--kafka-bootstrap-servers", "--kafka-group-id")
    flags = [
        flag.replace("--kafka-", "--") if flag.startswith(shared) else flag
        for flag in flags
        if not flag.startswith(("--create-topics", "--kafka-metadata", "--delivery"))
    ]
    assert main([*words, *flags]) == 0
    return capsys.readouterr().out


# -- a list ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", MODES)
def test_two_inputs_share_an_output_and_each_keeps_its_order(
    place: Place, start: Start, capsys: pytest.CaptureFixture[str], delivery: str
) -> None:
    place.create("a", "b")
    settings = place.lists("a", "b", delivery=delivery)
    workers = [start(settings), start(settings)]
    for turn in range(5):
        for name in ("a", "b"):
            place.produce(name, 20, 20 * turn)
    place.expect({"a": 100, "b": 100})
    wait_until(lambda: place.lag("a", "b") == 0, what="all is committed")
    for worker in workers:
        worker.stop()
    verdict = json.loads(command(capsys, settings, "audit", "--json"))
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"], verdict["pending"]) == (400, 0, 0)
    assert verdict["inputs"] == [place("a"), place("b")]
    described = json.loads(command(capsys, settings, "topics", "describe", "--json"))
    assert described["group"]["lag"] == 0
    assert described["topics"][place("b")]["partitions"][1]["committed"] == 100


def test_each_input_has_an_output_of_its_own(
    place: Place, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    place.create("a", partitions=2)
    place.create("b", partitions=3)
    settings = place.lists("a", "b", output__topic="{topic}.labelled")
    created = command(capsys, settings, "topics", "create")
    assert f"created  {place('a.labelled')}: 2 partitions" in created
    assert f"created  {place('b.labelled')}: 3 partitions" in created
    assert f"created  {place('dead')}: 3 partitions" in created
    assert "warning" not in created
    worker = start(settings | {"create_topics": False})
    place.produce("a", 10)
    place.produce("b", 7, partitions=3)
    produce(place.broker, place("b"), [(None, b"no object")], partition=0)
    place.expect({"a": 10}, "a.labelled")
    place.expect({"b": 7}, "b.labelled", partitions=3)
    wait_until(lambda: place.lag("a", "b") == 0, what="all is committed")
    series = worker.metrics.registry.get_sample_value
    labels = {"topic": place("b"), "partition": "2"}
    wait_until(lambda: series("streamlabel_offset_lag", labels) == 0, what="the lag is shown")
    worker.stop()
    verdict = json.loads(command(capsys, settings, "audit", "--json"))
    assert verdict["holds"], verdict
    assert (verdict["published"], verdict["dead_lettered"]) == (41, 1)
    assert verdict["outputs"] == [place("a.labelled"), place("b.labelled")]
    for check in ("topics", "rights", "records"):
        result = attempt(check, load(settings | {"create_topics": False}, environ={}).settings)
        assert result.ok, result
    assert "41 of 42" in result.detail + str(result.warnings), "records of both are sampled"
    rights = [right.words for right in try_rights(load(settings, environ={}).settings, clock)]
    assert f"READ on topic {place('b')}" in rights
    assert f"WRITE on topic {place('b.labelled')}" in rights


def test_partitions_added_to_one_input_are_read_from_their_start(
    place: Place, start: Start
) -> None:
    place.create("a", "b", partitions=1)
    settings = place.lists("a", "b", input__start="latest", output__topic="{topic}.labelled")
    start(settings)
    wait_until(lambda: committed(place) == 2, what="the group has begun")
    place.admin.create_partitions({place("b"): 2, place("b.labelled"): 2})
    place.produce("b", 10)
    place.produce("a", 10, partitions=1)
    place.expect({"a": 10}, "a.labelled", partitions=1)
    wait_until(
        lambda: read_of(place, "b") == {(0, n) for n in range(10)} | {(1, n) for n in range(10)},
        what="both partitions of b are read",
    )
    wait_until(lambda: place.lag("a", "b") == 0, 20, "all is committed")


def read_of(place: Place, name: str) -> set[tuple[int, int]]:
    """Return the partitions and offsets of an input's results, wherever they are."""
    results = read(place.broker, place(f"{name}.labelled"), 2)
    sources = [Classification.model_validate_json(result.value).source for result in results]
    assert len(sources) == len(set(sources)), "a repeat"
    return {(source.partition, source.offset) for source in sources}


def committed(place: Place) -> int:
    with ask(place.broker) as admin:
        return len(admin.all_committed(place.name))


def test_a_rollout_that_adds_an_input_reads_both(place: Place, start: Start) -> None:
    """The members of the group differ for a while, and either may lead it."""
    place.create("a", "b")
    old = start(place.lists("a"))
    place.produce("a", 10)
    place.expect({"a": 10})
    start(place.lists("a", "b"))
    place.produce("b", 10)
    place.expect({"a": 10, "b": 10})
    old.stop()
    place.produce("a", 10, 10)
    place.expect({"a": 20, "b": 10})


def test_a_deleted_topic_of_a_list_stops_the_worker(place: Place, start: Start) -> None:
    place.create("a", "b")
    worker = start(place.lists("a", "b"))
    place.produce("a", 5)
    place.expect({"a": 5})
    place.delete("b")
    worker.join(60)
    assert isinstance(worker.error, TopicMissing)
    assert place("b") in str(worker.error)


# -- a pattern -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", MODES)
def test_topics_that_match_are_found_and_deleted_ones_end(
    place: Place, start: Start, capsys: pytest.CaptureFixture[str], delivery: str
) -> None:
    place.create("in-a", "other")
    settings = place.matches("in-.*", delivery=delivery, output__topic="{topic}-labelled")
    settings["input.topic_pattern"] += "(?<!-labelled)"
    settings["input.start"] = "latest"
    workers = [start(settings), start(settings)]
    wait_until(lambda: committed(place) == 2, what="the group has begun")
    place.produce("in-a", 10)
    place.expect({"in-a": 10}, "in-a-labelled")
    place.create("in-b")
    place.produce("in-b", 10)
    place.expect({"in-b": 10}, "in-b-labelled")
    with capture_logs() as lines:
        place.delete("in-a")
        wait_until(lambda: "an input topic was deleted" in [x["event"] for x in lines], what="log")
        place.produce("in-b", 10, 10)
        place.expect({"in-b": 20}, "in-b-labelled")
        wait_until(lambda: place.lag("in-b") == 0, what="all is committed")
    # The group rebalances, which may take a while, and a transaction of its generation before that
    # is tried again.
    told = {line["event"] for line in lines if line["log_level"] in ("warning", "error")}
    told = {event for event in told if not event.startswith(OF_A_SLOW_MACHINE)}
    assert told <= {"publish failed, retrying"}, lines
    for worker in workers:
        worker.stop()
    verdict = json.loads(command(capsys, settings, "audit", "--json"))
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["inputs"]) == (40, [place("in-b")])


@pytest.mark.parametrize("delivery", MODES)
def test_a_topic_that_is_recreated_is_read_from_its_start(
    place: Place, start: Start, delivery: str
) -> None:
    """The offsets of the old one would skip records of the new one."""
    place.create("in-a", "in-b")
    start(place.matches("in-.*", delivery=delivery))
    place.produce("in-a", 10)
    place.produce("in-b", 10)
    place.expect({"in-a": 10, "in-b": 10})
    place.delete("in-a")
    place.create("in-a")
    place.produce("in-a", 15)

    def again() -> bool:
        return all(
            place.results()[Partition(place("in-a"), n)] == [*range(10), *range(15)]
            for n in range(2)
        )

    wait_until(again, what="the new topic is read from its start")
    place.produce("in-b", 5, 10)
    wait_until(lambda: place.lag("in-a", "in-b") == 0, what="all is committed")


def test_a_worker_waits_for_the_first_topic_that_matches(place: Place, start: Start) -> None:
    with capture_logs() as lines:
        settings = place.matches("in-.*")
        worker = start(settings)
        said = "no topic matches input.topic_pattern = "
        wait_until(lambda: said in worker.progress.ready()[1], what="it says so")
        assert worker.progress.ready()[0] is False
        (warning,) = attempt("topics", load(settings, environ={}).settings).warnings
        assert (
            warning
            == f"{worker.progress.ready()[1].removeprefix('waiting: ')}: a worker waits for one"
        )
        assert [line for line in lines if said in line.get("reason", "")]
        place.create("in-a")
        place.produce("in-a", 10)
        place.expect({"in-a": 10})
        wait_until(lambda: worker.progress.ready()[0], what="it is ready")
        place.delete("in-a")
        wait_until(lambda: not worker.progress.ready()[0], what="it waits again")
        place.create("in-a")
        wait_until(lambda: worker.progress.ready()[0], what="it is ready again")


def test_a_found_topic_whose_output_is_missing_stops_the_worker_and_loses_nothing(
    place: Place, start: Start
) -> None:
    place.create("in-a", "dead", "out-in-a")
    settings = place.matches("in-.*", create_topics=False, output__topic="out-{topic}")
    output = f"out-{place('in-a')}"
    place.admin.create_topics({output: {"num_partitions": 2}})
    place.admin.wait_for_topics([output])
    try:
        worker = start(settings)
        place.produce("in-a", 10)
        wait_until(lambda: place.lag("in-a") == 0, what="all is committed")
        place.create("in-b")
        worker.join(60)
        assert isinstance(worker.error, TopicMissing)
        message = str(worker.error)
        assert f"topics missing on {place.broker.bootstrap_servers}: out-{place('in-b')}" in message
        assert "streamlabel topics create" in message
        assert "'out-{topic}'" in message
        assert place.lag("in-a") == 0
    finally:
        place.admin.delete_topics([output])


def test_a_loop_is_refused_at_start_and_when_a_topic_is_found(place: Place, start: Start) -> None:
    settings = place.matches("in-.*", output__topic="{topic}-x")
    worker = start(settings)
    wait_until(lambda: place("dead") in place.admin.list_topics(), what="it has started")
    place.create("in-a")
    worker.join(60)
    for error in (worker.error, refusal(settings)):
        assert isinstance(error, Fatal)
        assert f"gives input {place('in-a')!r} the output {place('in-a-x')!r}" in str(error)
        assert "the worker would read what it wrote" in str(error)
    assert place("in-a-x") not in place.admin.list_topics()


def refusal(settings: dict[str, Any]) -> Fatal:
    with pytest.raises(Fatal) as refused:
        require(load(settings, environ={}).settings)
    return refused.value


def test_many_topics_of_one_pattern_are_divided_among_two_workers(
    place: Place, start: Start
) -> None:
    names = [f"in-{n}" for n in range(12)]
    place.create(*names[:6], partitions=1)
    workers = [start(place.matches("in-.*")) for _ in range(2)]
    wait_until(lambda: all(w.progress.ready()[0] for w in workers), what="both are in")
    place.create(*names[6:], partitions=1)
    for name in names:
        place.produce(name, 5, partitions=1)
    place.expect(dict.fromkeys(names, 5), partitions=1)
    wait_until(lambda: place.lag(*names) == 0, what="all is committed")
    assert min(worker.published for worker in workers) > 0


# -- results with a schema -------------------------------------------------------------------------


def test_each_output_gets_the_schema_of_results_before_its_first_result(
    place: Place, start: Start, breakable_registry: ApicurioRegistry
) -> None:
    """One that is found too; while the registry is away, the other topics go on."""
    registry = breakable_registry
    place.create("in-a")
    settings = place.matches("in-.*", output__topic="{topic}-x", output__format="avro")
    settings["input.topic_pattern"] += "(?<!-x)"
    settings |= {"registry.url": registry.url, "registry.timeout": 1}
    start(settings)
    place.produce("in-a", 5)
    wait_until(lambda: place.lag("in-a") == 0, what="all of a is committed")
    registry.kill()
    with capture_logs() as lines:
        place.create("in-b")
        place.produce("in-b", 5)
        said = "new topics can't be read yet, retrying"
        wait_until(lambda: said in [line["event"] for line in lines], what="it says so")
    place.produce("in-a", 5, 5)
    wait_until(lambda: place.lag("in-a") == 0, what="a goes on")
    assert place.lag("in-b") == 10
    registry.start()
    wait_until(lambda: place.lag("in-b") == 0, what="b is read")
    for name in ("in-a", "in-b"):
        values = {result.value[:5] for result in read(place.broker, place(f"{name}-x"), 2)}
        (frame,) = values
        assert frame[0] == 0
        assert (
            int.from_bytes(frame[1:])
            == registry.ask("GET", f"/subjects/{place(name)}-x-value/versions/latest")["id"]
        )


def test_results_are_added_by_a_schema_for_each_output(
    place: Place, start: Start, registry: ApicurioRegistry
) -> None:
    """Inputs of different records: each output has the schemas of its own input alone."""
    place.create("a", "b")
    settings = place.lists("a", "b", output__topic="{topic}-x", output__mode="enrich")
    settings |= {"input.format": "avro", "output.format": "avro", "registry.url": registry.url}
    for name in ("a", "b"):
        schema = {"type": "record", "name": name, "fields": [{"name": "text", "type": "string"}]}
        number = registry.register(f"{place(name)}-value", json.dumps(schema))
        produce(place.broker, place(name), [(b"k", b"\0" + number.to_bytes(4) + b"\x04hi")] * 3)
    start(settings)
    wait_until(lambda: place.lag("a", "b") == 0, what="both are read")
    for name in ("a", "b"):
        latest = registry.ask("GET", f"/subjects/{place(name)}-x-value/versions/latest")
        assert (latest["version"], json.loads(latest["schema"])["name"]) == (1, name)
        values = [result.value for result in read(place.broker, place(f"{name}-x"), 2)]
        start_ = b"\0" + latest["id"].to_bytes(4) + b"\x04hi"
        assert [value.startswith(start_) for value in values] == [True] * 3
