"""A worker that labels a range: where it begins, where it ends, and what it tells."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from kafka import KafkaAdminClient, KafkaProducer, OffsetAndMetadata, TopicPartition

from tests.conftest import Broker, MakeTopics, Topics
from tests.support.workers import (
    ObedientModel,
    Partitions,
    WorkerThread,
    clock,
    flags,
    needs_kafka,
    produce,
    read,
    texts,
    wait_until,
)
from worker.cli.main import main
from worker.core.bounds import read_note
from worker.core.records import Partition
from worker.core.when import Span, parse_when
from worker.errors import Fatal
from worker.kafka_io.source import KafkaSource
from worker.settings import Settings, load, options
from worker.signals import STOPPING

pytestmark = pytest.mark.integration

MODES = ("at_least_once", "exactly_once")


def span(start: str, end: str, group: str = "", rate: float | None = None) -> Span:
    return Span(parse_when(start, 0), parse_when(end, 0), group, rate)


def backfill(
    broker: Broker,
    topics: Topics,
    range_: Span,
    model: ObedientModel | None = None,
    **more: Any,
) -> WorkerThread:
    """Start a worker for a range; `more` are settings by path, with `__` for the dot."""
    chosen = flags(broker, topics) | {k.replace("__", "."): v for k, v in more.items()}
    model = model or ObedientModel()
    return WorkerThread(load(chosen, environ={}).settings, model, model, span=range_)


def ended(worker: WorkerThread) -> None:
    worker.join()
    assert worker.error is None


def labelled(broker: Broker, topics: Topics) -> dict[int, list[int]]:
    """Return the offsets of the records with a result, by partition, in the results' order."""
    found: dict[int, list[int]] = {}
    for record in read(broker, topics.output, topics.partitions):
        source = dict(record.headers)["streamlabel-source"].decode()
        _, partition, offset = source.rsplit("/", 2)
        found.setdefault(int(partition), []).append(int(offset))
    return found


def committed(admin: KafkaAdminClient, topics: Topics) -> dict[int, int]:
    offsets = admin.list_group_offsets(topics.group)[topics.group]
    return {tp.partition: at.offset for tp, at in offsets.items()}


def notes(admin: KafkaAdminClient, topics: Topics) -> dict[int, Any]:
    offsets = admin.list_group_offsets(topics.group)[topics.group]
    return {tp.partition: read_note(at.metadata) for tp, at in offsets.items()}


# -- the bounds --------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", MODES)
def test_a_range_is_labelled_and_nothing_else(
    broker: Broker, make_topics: MakeTopics, admin: KafkaAdminClient, delivery: str
) -> None:
    """Two workers share it, the third partition is empty, and the group commits the exact ends."""
    topics = make_topics(partitions=3)
    for partition in range(2):
        produce(broker, topics.input, texts(60), partition=partition)
    asked = span("0:10,1:20", "0:25,1:50")
    for worker in [backfill(broker, topics, asked, delivery=delivery) for _ in range(2)]:
        ended(worker)
    assert labelled(broker, topics) == {0: list(range(10, 25)), 1: list(range(20, 50))}
    assert committed(admin, topics) == {0: 25, 1: 50, 2: 0}


@pytest.mark.parametrize("delivery", MODES)
@pytest.mark.parametrize("topics", [1], indirect=True)
def test_an_end_stays_where_it_was_chosen(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, delivery: str
) -> None:
    """A worker that resumes ends at the same `now`, although more records have arrived."""
    produce(broker, topics.input, texts(40))
    wait, model = threading.Event(), ObedientModel()

    def predict(given: list[str]) -> None:
        if len(model.predicted) > 2:
            wait.wait(30)

    model.on_predict = predict
    small = {"delivery": delivery, "batch__max_records": 5, "shutdown_timeout": 2.0}
    first = backfill(broker, topics, span("5", "now"), model, **small)
    wait_until(lambda: committed(admin, topics).get(0, 0) > 5, what="something is committed")
    first.stop_event.set()
    wait.set()
    first.join()
    produce(broker, topics.input, texts(40, start=40))
    ended(backfill(broker, topics, span("5", "now"), delivery=delivery))
    assert sorted(set(labelled(broker, topics)[0])) == list(range(5, 40))
    assert committed(admin, topics) == {0: 40}


@pytest.mark.parametrize("topics", [1], indirect=True)
@pytest.mark.parametrize("delivery", MODES)
def test_a_range_may_end_with_offsets_that_are_no_records(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, delivery: str
) -> None:
    """The last offsets are an aborted transaction and its marker: the position counts."""
    needs_kafka(broker, "has no transactions of several producers")
    produce(broker, topics.input, texts(5))
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, transactional_id=f"{topics.group}-input"
    )
    with contextlib.closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        for _ in range(3):
            producer.send(topics.input, b'{"text": "aborted"}')
        producer.flush()
        producer.abort_transaction()
    produce(broker, topics.input, texts(5))
    ended(backfill(broker, topics, span("2", "8"), delivery=delivery))
    assert labelled(broker, topics) == {0: [2, 3, 4]}
    assert committed(admin, topics) == {0: 8}


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_partition_is_not_fetched_beyond_its_range(broker: Broker, topics: Topics) -> None:
    produce(broker, topics.input, texts(30))
    settings = load(flags(broker, topics), environ={}).settings
    source = KafkaSource(settings, Partitions(), clock, span=span("5", "10"))
    polled: list[int] = []

    def finished() -> bool:
        polled.extend(record.ref.offset for record in source.poll(0.1, 7))
        return source.positions() == {Partition(topics.input, 0): 10}

    try:
        wait_until(finished, what="the end of the range")
        source.poll(0.1, 7)
        source.resume()  # as after a pause of the whole worker
        source.poll(0.1, 7)
        assert source._consumer.paused() == {TopicPartition(topics.input, 0)}
        source._consumer.seek(TopicPartition(topics.input, 0), 8)  # as after a truncation
        wait_until(finished, what="the end of the range again")
    finally:
        source.close(5)
    assert polled == [5, 6, 7, 8, 9, 8, 9]


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_range_is_moved_into_the_log(
    broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    produce(broker, topics.input, texts(10))
    ended(backfill(broker, topics, span("4", "5000")))
    assert labelled(broker, topics) == {0: list(range(4, 10))}
    assert notes(admin, topics)[0][:2] == (4, 10)


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_range_of_times_begins_and_ends_at_their_first_records(
    broker: Broker, topics: Topics
) -> None:
    hour_ago = clock.wall_ms() - 3_600_000  # retention must not delete it
    for second in range(10):
        produce(broker, topics.input, texts(1), timestamp_ms=hour_ago + 1_000 * second)
    start, end = (
        datetime.fromtimestamp((hour_ago + ms) / 1_000, UTC).isoformat() for ms in (3_000, 6_500)
    )
    ended(backfill(broker, topics, span(start, end)))
    assert labelled(broker, topics) == {0: [3, 4, 5, 6]}


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_range_may_end_where_the_workers_group_is(
    broker: Broker, topics: Topics, make_topics: MakeTopics, admin: KafkaAdminClient
) -> None:
    produce(broker, topics.input, texts(10))
    other = make_topics().group
    begin = span("earliest", "committed", other)
    worker = backfill(broker, topics, begin)
    worker.join()
    assert isinstance(worker.error, Fatal)
    assert "has committed no offset of" in str(worker.error)
    tp = TopicPartition(topics.input, 0)
    admin.alter_group_offsets(other, {tp: OffsetAndMetadata(7, "", -1)})
    ended(backfill(broker, topics, begin))
    assert labelled(broker, topics) == {0: list(range(7))}


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_rate_limits_a_backfill(broker: Broker, topics: Topics) -> None:
    produce(broker, topics.input, texts(30))
    worker = backfill(broker, topics, span("earliest", "now", rate=20))
    ended(worker)
    times = [
        datetime.fromisoformat(json.loads(record.value)["processed_at"]).timestamp()
        for record in read(broker, topics.output, 1)
    ]
    assert len(times) == 30
    assert max(times) - min(times) >= 1  # 30 records at 20 a second, less one burst


# -- the command -------------------------------------------------------------------------------


class Command:
    """`streamlabel backfill` in this process, with a scripted model.

    Attributes:
        model: of the next run.
        out, err: of the last run.
    """

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        capsys: pytest.CaptureFixture[str],
        model: ObedientModel,
    ) -> None:
        self._broker, self._topics, self._capsys, self.model = broker, topics, capsys, model
        self.out = self.err = ""

    def run(self, *arguments: str, group: str | None = None) -> int:
        """Return the exit code."""
        given = flags(self._broker, self._topics) | {"kafka.group_id": group or self._topics.group}
        common = [f"{one.flag}={given[one.path]}" for one in options() if one.path in given]
        if group == "":
            common = [flag for flag in common if not flag.startswith("--group-id")]
        self._capsys.readouterr()
        code = main(["backfill", *arguments, *common, "--log-format", "plain"])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def command(
    broker: Broker,
    topics: Topics,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Command]:
    """The command; the handlers of signals and of the log are put back."""
    made = Command(broker, topics, capsys, ObedientModel())

    @contextlib.contextmanager
    def loading(*_: object) -> Iterator[Future[Any]]:
        done: Future[Any] = Future()
        done.set_result((made.model, made.model))
        yield done

    monkeypatch.setattr("worker.inference.warm.loading", loading)
    signals = {number: signal.getsignal(number) for number in STOPPING}
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield made
    for number, handler in signals.items():
        signal.signal(number, handler)
    root.handlers[:], root.level = handlers, level
    structlog.configure(**structured)


def stop_after(records: int, model: ObedientModel) -> None:
    """Have the process receive SIGTERM once the model has labelled so many records."""
    sent: list[bool] = []

    def predict(_: list[str]) -> None:
        if not sent and sum(map(len, model.predicted)) >= records:
            sent.append(True)  # a second one would end the process at once
            signal.raise_signal(signal.SIGTERM)

    model.on_predict = predict


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_the_command_labels_a_range_and_audits_it(
    broker: Broker, topics: Topics, command: Command
) -> None:
    """The same command does no more than the audit, once a range of fixed places is labelled."""
    produce(broker, topics.input, [*texts(20), (None, b"no json")])
    arguments = ("--from", "5", "--to", "21")
    assert command.run(*arguments, "--json") == 0
    document = json.loads(command.out)
    assert (document["holds"], document["range"], document["offsets"]) == (True, "5..21", 16)
    assert (document["published"], document["dead_lettered"], document["lost"]) == (15, 1, 0)
    assert document["pending"] == 0
    command.model = ObedientModel()
    assert command.run(*arguments) == 0
    assert "the group has labelled this range already: auditing it" in command.err
    assert "16 input records: 15 labelled, 1 dead letter, 0 without an outcome" in command.out
    assert command.model.predicted == []


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_backfill_has_a_group_of_its_own(
    broker: Broker, topics: Topics, command: Command, admin: KafkaAdminClient
) -> None:
    """Its name says what it does; the worker's own group is refused."""
    produce(broker, topics.input, texts(3))
    assert command.run("--from", "1", group="") == 0
    name = f"streamlabel-backfill-1-to-now-into-{topics.output}"
    assert f"group {name} (the same command resumes and shares it)" in command.err
    assert admin.list_group_offsets(name)[name]
    long = "0:1" + ",0:1" * 1_500  # more than the metadata of an offset may have (4,096 bytes)
    assert command.run("--from", long, group="") == 0
    assert re.search(r"group streamlabel-backfill-0-1-0-1-[-01]+-[0-9a-f]{16}-into-", command.err)
    assert command.run("--from", "earliest", group="streamlabel") == 2
    assert "--group-id streamlabel is the group of the worker itself" in command.err


@pytest.mark.parametrize("topics", [2], indirect=True)
@pytest.mark.parametrize("arguments", [("--from", "7d"), ("--from", "0", "--to", "now")])
def test_a_finished_range_whose_places_have_moved_is_refused(
    broker: Broker, topics: Topics, command: Command, arguments: tuple[str, ...]
) -> None:
    """An exit code of 0 would say that the records since then are labelled too."""
    produce(broker, topics.input, texts(4), partition=0)
    assert command.run(*arguments) == 0
    produce(broker, topics.input, texts(2), partition=0)
    command.model = ObedientModel()
    assert command.run(*arguments) == 1
    assert re.search(
        rf"group '{topics.group}' has labelled {arguments[1]}\.\.now already, as of "
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC: 4 offsets \({topics.input}\[0\] 0 to 4\)",
        command.err,
    )
    assert f"another --group-id. `streamlabel audit --group-id {topics.group}`, with" in command.err
    assert command.model.predicted == []


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_backfills_with_the_settings_of_one_worker_do_not_stop_each_other(
    broker: Broker, topics: Topics, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's group_instance_id names its slot; two members of that name fence each other."""
    produce(broker, topics.input, texts(3))
    monkeypatch.setenv("STREAMLABEL_KAFKA_GROUP_INSTANCE_ID", "slot-0")
    used: list[str | None] = []
    connect = KafkaSource.__init__

    def note(source: KafkaSource, settings: Settings, *rest: Any, **more: Any) -> None:
        used.append(settings.kafka.group_instance_id)
        connect(source, settings, *rest, **more)

    monkeypatch.setattr(KafkaSource, "__init__", note)
    assert command.run("--from", "1") == 0
    assert command.run("--from", "1", "--kafka-group-instance-id", "mine", group="") == 0
    assert used == [None, "mine"]


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_stopped_backfill_goes_on_with_the_same_command(
    broker: Broker, topics: Topics, command: Command
) -> None:
    produce(broker, topics.input, texts(40))
    stop_after(10, command.model)
    arguments = ("--from", "earliest", "--batch-max-records", "5", "--delivery", "exactly_once")
    assert command.run(*arguments) == 1
    assert "of 40 offsets are labelled; the same command goes on from there" in command.err
    command.model = ObedientModel()
    assert command.run(*arguments) == 0
    assert "resuming at " in command.err
    assert labelled(broker, topics) == {0: list(range(40))}


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_retention_that_overtakes_a_backfill_is_told(
    broker: Broker, topics: Topics, command: Command, admin: KafkaAdminClient
) -> None:
    """The deleted offsets are counted over all runs, and the exit code is 1."""
    needs_kafka(broker, "deletes no records")
    produce(broker, topics.input, texts(60))
    stop_after(10, command.model)
    arguments = ("--from", "earliest", "--to", "50", "--batch-max-records", "5")
    assert command.run(*arguments) == 1
    at = committed(admin, topics)[0]
    admin.delete_records({TopicPartition(topics.input, 0): 40})
    command.model = ObedientModel()
    stop_after(3, command.model)
    assert command.run(*arguments) == 1
    command.model = ObedientModel()
    assert command.run(*arguments, "--json") == 1
    document = json.loads(command.out)
    assert (document["lost"], document["missing"], document["holds"]) == (40 - at, 0, True)
    assert f"{40 - at} offsets of the range were deleted (retention) before they" in command.err
    assert set(labelled(broker, topics)[0]) == {*range(at), *range(40, 50)}


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_range_may_be_deleted_whole(
    broker: Broker, topics: Topics, command: Command, admin: KafkaAdminClient
) -> None:
    """Offsets beyond the range that were deleted too do not count."""
    needs_kafka(broker, "deletes no records")
    produce(broker, topics.input, texts(60))
    stop_after(1, command.model)
    assert command.run("--from", "0", "--to", "50", "--batch-max-records", "5") == 1
    at = committed(admin, topics)[0]
    admin.delete_records({TopicPartition(topics.input, 0): 55})
    command.model = ObedientModel()
    assert command.run("--from", "0", "--to", "50", "--json") == 1
    assert json.loads(command.out)["lost"] == 50 - at
    assert committed(admin, topics) == {0: 50}


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_group_keeps_its_range(
    broker: Broker, topics: Topics, command: Command, admin: KafkaAdminClient
) -> None:
    """Neither another range nor offsets of a worker are overwritten."""
    produce(broker, topics.input, texts(3))
    assert command.run("--from", "1") == 0
    before = committed(admin, topics)
    assert command.run("--from", "2") == 1
    assert "labels the range 1..now, not 2..now" in command.err
    tp = TopicPartition(topics.input, 0)
    admin.alter_group_offsets(topics.group, {tp: OffsetAndMetadata(3, "", -1)})
    assert command.run("--from", "1") == 1
    assert f"has an offset of {topics.input}[0] that belongs to no range" in command.err
    assert committed(admin, topics) == before
    worker = backfill(broker, topics, span("1", "now"))
    worker.join()
    assert isinstance(worker.error, Fatal)


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_an_earlier_backfill_counts_for_itself(
    broker: Broker, topics: Topics, command: Command, make_topics: MakeTopics
) -> None:
    """Each outcome names its group, and each audit judges those of its own."""
    produce(broker, topics.input, [*texts(6), (None, b"no json")])
    once, groups = ("--from", "earliest", "--delivery", "exactly_once", "--json"), set()
    for group, others in ((make_topics().group, 0), (topics.group, 7)):
        assert command.run(*once, group=group) == 0
        document = json.loads(command.out)
        assert (document["consumed"], document["dead_lettered"]) == (7, 1)
        assert document["unjudged"].get("outcome of another group", 0) == others
        groups.add(group.encode())
    for topic in (topics.output, topics.dead):
        named = [dict(record.headers)["streamlabel-group"] for record in read(broker, topic, 1)]
        assert set(named) == groups


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_backfill_is_no_part_of_a_shadow_s_comparison(
    broker: Broker, topics: Topics, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    produce(broker, topics.input, texts(3))
    assert command.run("--from", "1", "--shadow-name", "/no/such/model", "--log-level", "info") == 0
    assert "shadow" not in command.err + caplog.text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", "yesterday"), "'yesterday' is no place in a topic"),
        (("--from", "0:1,7:1"), "0:1,7:1: the input has no partition 7"),
        (("--from", "1", "--processes", "2"), "start the same command several times"),
        (("--from", "now", "--to", "earliest"), "no record lies between"),
    ],
)
def test_a_range_that_can_not_be_read_is_refused(
    command: Command, arguments: tuple[str, ...], told: str
) -> None:
    assert command.run(*arguments) == 2
    assert told in command.err


@pytest.mark.parametrize("rate", ["0", "0.5", "inf", "nan", "x"])
def test_a_rate_below_a_record_a_second_is_refused(command: Command, rate: str) -> None:
    with pytest.raises(SystemExit):
        command.run("--from", "1", "--rate", rate)
