"""`streamlabel audit` on a real broker: it sees each sabotage, and calls nothing else one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError

from tests.conftest import Broker, Topics
from tests.support.workers import clock, count, produce, read, running, texts, wait_until
from worker.cli.main import main
from worker.core.coordinates import SOURCE_HEADER, format_source
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.kafka_io.admin import Admin
from worker.kafka_io.reader import TopicReader
from worker.settings import KafkaSettings

pytestmark = pytest.mark.integration

RECORDS = 30  # ten in each of three partitions
DEAD = ((0, 4), (1, 7), (1, 8))


@dataclass
class Stage:
    """Producer, topics and the command, for one test."""

    broker: Broker
    topics: Topics
    producer: KafkaProducer
    capsys: pytest.CaptureFixture[str]
    key: bytes | None = None  # a compacted topic takes no record without one

    def feed(self, records: int = RECORDS) -> None:
        for number in range(records):
            self.producer.send(self.topics.input, b"text", self.key, partition=number % 3)
        self.producer.flush()

    def publish(self, partition: int, offset: int) -> None:
        header = (SOURCE_HEADER, format_source(self.topics.input, partition, offset))
        self.producer.send(
            self.topics.output, b"{}", self.key, partition=partition, headers=[header]
        )

    def bury(self, partition: int, offset: int, reason: str = "not_json") -> None:
        headers = [
            (SOURCE_HEADER, format_source(self.topics.input, partition, offset)),
            (DEAD_LETTER_HEADER, json.dumps({"reason": reason, "message": "..."}).encode()),
        ]
        self.producer.send(self.topics.dead, b"", partition=partition, headers=headers)

    def label(self, *left_out: tuple[int, int]) -> None:
        """Outcomes as a worker would publish them, but for those left out."""
        for partition in range(3):
            for offset in range(RECORDS // 3):
                if (partition, offset) in left_out:
                    continue
                if (partition, offset) in DEAD:
                    self.bury(partition, offset)
                else:
                    self.publish(partition, offset)

    def commit(self, *offsets: int) -> None:
        with KafkaConsumer(
            bootstrap_servers=self.broker.bootstrap_servers,
            group_id=self.topics.group,
            enable_auto_commit=False,
        ) as consumer:
            partitions = [TopicPartition(self.topics.input, n) for n in range(len(offsets))]
            consumer.assign(partitions)
            consumer.commit(
                {
                    tp: OffsetAndMetadata(offset, "", -1)
                    for tp, offset in zip(partitions, offsets, strict=True)
                }
            )

    def command(self, *words: str) -> int:
        self.producer.flush()
        self.capsys.readouterr()
        flags = {
            "--bootstrap-servers": self.broker.bootstrap_servers,
            "--group-id": self.topics.group,
            "--input-topic": self.topics.input,
            "--output-topic": self.topics.output,
            "--output-dead-letter-topic": self.topics.dead,
        }
        return main(["audit", *(word for pair in flags.items() for word in pair), *words])

    def audit(self, *words: str, code: int = 0) -> dict[str, Any]:
        """The JSON that the audit prints, having exited with `code`."""
        assert self.command("--json", *words) == code
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        assert found["holds"] is (code == 0)
        return found


@pytest.fixture
def stage(broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]) -> Iterator[Stage]:
    # Not idempotent: an embedded broker takes no old sequence of numbers for a topic made anew.
    servers = broker.bootstrap_servers
    with KafkaProducer(bootstrap_servers=servers, enable_idempotence=False) as producer:
        yield Stage(broker, topics, producer, capsys)


def test_a_worker_that_kept_its_promises_is_told_so(stage: Stage) -> None:
    """Below the commits everything is judged, dead letters are counted by reason."""
    stage.feed()
    stage.label()
    stage.commit(10, 10, 10)
    found = stage.audit("--delivery", "exactly_once")
    assert (found["consumed"], found["published"], found["dead_lettered"]) == (30, 27, 3)
    assert found["reasons"] == {"not_json": 3}
    assert (found["pending"], found["unjudged"], found["notes"]) == (0, {}, [])


def test_people_get_a_verdict_for_each_promise(stage: Stage) -> None:
    """And the coordinates of what broke it."""
    stage.feed()
    stage.label((2, 5))
    assert stage.command("--to-end") == 1
    told = stage.capsys.readouterr().out
    assert "BROKEN  every record has an outcome" in told
    assert f"{stage.topics.input}/2/5" in told
    assert "holds  outcomes keep the order of their partition" in told


def test_a_missing_outcome_is_found(stage: Stage) -> None:
    """Wherever it would have been."""
    stage.feed()
    stage.label((0, 0), (1, 8), (2, 9))
    found = stage.audit("--to-end", code=1)
    assert (found["broken"], found["missing"], found["consumed"]) == (["missing"], 3, 30)
    assert found["examples"]["missing"] == [
        f"{stage.topics.input}/{at}" for at in ("0/0", "1/8", "2/9")
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--allow-duplicates", "1"], 0),
        (["--allow-duplicates", "0"], 1),
        (["--delivery", "exactly_once"], 1),
    ],
)
def test_a_duplicate_is_told_and_breaks_what_forbids_it(
    stage: Stage, words: list[str], code: int
) -> None:
    """At least once allows it after a crash; exactly once never."""
    stage.feed()
    stage.label()
    stage.publish(1, 3)
    found = stage.audit("--to-end", *words, code=code)
    assert (found["duplicated"], found["reordered"]) == (1, 0)


def test_results_that_changed_places_are_found(stage: Stage) -> None:
    """Within one partition of the output."""
    stage.feed()
    stage.label((2, 3), (2, 4))
    stage.publish(2, 4)
    stage.publish(2, 3)
    found = stage.audit("--to-end", code=1)
    assert (found["broken"], found["reordered"]) == (["reordered"], 2)


def test_an_outcome_without_a_record_is_found(stage: Stage) -> None:
    """Whether its coordinates lead nowhere or can't be read."""
    stage.feed()
    stage.label()
    stage.publish(0, 10)
    stage.producer.send(
        stage.topics.dead, b"", partition=1, headers=[(SOURCE_HEADER, b"not/coordinates")]
    )
    found = stage.audit("--to-end", code=1)
    assert (found["broken"], found["orphans"]) == (["orphans"], 2)


def test_records_that_no_worker_wrote_are_not_judged(stage: Stage) -> None:
    """Another producer writes to the output: of its records nothing was promised."""
    stage.feed()
    stage.label((1, 5))
    for topic in (stage.topics.output, stage.topics.dead):
        stage.producer.send(topic, b"who am I", partition=1, headers=[("trace", b"1/2/3")])
    found = stage.audit("--to-end", code=1)
    assert (found["broken"], found["missing"], found["orphans"]) == (["missing"], 1, 0)
    assert found["unjudged"] == {"record without coordinates, of another producer": 2}


def test_another_workers_results_are_not_judged(stage: Stage) -> None:
    """Two inputs may share an output topic."""
    stage.feed()
    stage.label()
    header = (SOURCE_HEADER, b"elsewhere/0/0")
    stage.producer.send(stage.topics.output, b"{}", partition=0, headers=[header])
    assert stage.audit("--to-end")["unjudged"] == {"outcome of another input topic": 1}


def test_what_is_not_committed_is_pending(stage: Stage) -> None:
    """Its outcome may be there already, or not yet."""
    stage.feed()
    stage.label((0, 9), (1, 5), (1, 6), (2, 0))
    stage.commit(9, 5)
    found = stage.audit()
    assert (found["consumed"], found["pending"]) == (14, 16)
    assert found["unjudged"] == {"outcome of a record that is not committed yet": 12}


def test_a_group_that_committed_nothing_is_no_proof(stage: Stage) -> None:
    """A misspelt group must not look like a kept promise."""
    stage.feed()
    stage.label()
    assert stage.command() == 1
    assert f"group '{stage.topics.group}' has committed no offset" in stage.capsys.readouterr().err


@pytest.mark.parametrize("role", ["input", "output", "dead"])
def test_a_missing_topic_is_named(stage: Stage, admin: KafkaAdminClient, role: str) -> None:
    """With the command that makes it."""
    name = getattr(stage.topics, role)
    admin.delete_topics([name])
    with Admin(KafkaSettings(bootstrap_servers=stage.broker.bootstrap_servers)) as asked:
        wait_until(lambda: asked.topics([name])[name] is None, what="the topic is gone")
    assert stage.command("--to-end") == 1
    told = stage.capsys.readouterr().err
    assert f"nothing to audit: missing on {stage.broker.bootstrap_servers}: {name}" in told
    assert "streamlabel topics create" in told


def test_an_empty_input_keeps_every_promise(stage: Stage) -> None:
    """Nothing was promised about nothing."""
    assert stage.audit()["consumed"] == 0


def test_records_that_were_deleted_are_not_judged(stage: Stage, admin: KafkaAdminClient) -> None:
    """Their outcomes lead to nothing any more, and that is nobody's fault."""
    stage.feed()
    stage.label()
    stage.producer.flush()
    admin.delete_records({TopicPartition(stage.topics.input, 0): 4})
    found = stage.audit("--to-end")
    assert found["consumed"] == 26
    assert found["unjudged"] == {"outcome of a record that retention has removed": 4}


def test_outcomes_that_were_deleted_are_not_missing(stage: Stage, admin: KafkaAdminClient) -> None:
    """But a gap behind the first one that is left still is."""
    stage.feed()
    stage.label((2, 7))
    stage.producer.flush()
    admin.delete_records({TopicPartition(stage.topics.output, 2): 3})
    found = stage.audit("--to-end", code=1)
    assert found["missing"] == 1
    assert found["unjudged"] == {"record whose result may have been removed": 3}


def test_repeats_whose_first_copy_was_deleted_are_no_disorder(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """After a crash outcomes 5 to 9 came again; retention took 0 to 7, their first copies too."""
    stage.feed()
    stage.label()
    for offset in range(5, 10):
        stage.publish(2, offset)
    stage.producer.flush()
    admin.delete_records({TopicPartition(stage.topics.output, 2): 8})
    found = stage.audit("--to-end")
    assert (found["reordered"], found["duplicated"]) == (0, 2)
    assert found["unjudged"] == {
        "record whose result may have been removed": 5,
        "outcome whose first copy may have been removed": 3,
    }
    assert found["notes"] == [f"{stage.topics.output}: 8 offsets were removed before this audit"]


def test_where_all_outcomes_were_deleted_nothing_is_missing(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """Not even where the markers of transactions are all that is left."""
    stage.feed()
    with transactional(stage) as producer:
        plain, stage.producer = stage.producer, producer
        producer.begin_transaction()
        stage.label()
        producer.commit_transaction()
        stage.producer = plain
    # What is left: a result and a marker, a marker, nothing.
    output = [TopicPartition(stage.topics.output, number) for number in range(3)]
    with Admin(KafkaSettings(bootstrap_servers=stage.broker.bootstrap_servers)) as asked:
        ends = {0: 10, 1: 9, 2: 11}
        wait_until(lambda: asked.end_offsets(stage.topics.output) == ends, what="markers are there")
    admin.delete_records(dict(zip(output, (8, 8, 11), strict=True)))
    admin.delete_records({TopicPartition(stage.topics.dead, 0): 1})
    found = stage.audit("--to-end")
    assert (found["published"], found["dead_lettered"], found["missing"]) == (1, 2, 0)
    assert found["unjudged"] == {
        "record whose dead_letter may have been removed": 9,
        "record whose result may have been removed": 18,
    }


def make_anew(admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])

    def made() -> bool:
        try:
            admin.create_topics({topic: {"num_partitions": 3}})
        except TopicAlreadyExistsError:  # a topic goes some time after its deletion is answered
            return False
        return True

    wait_until(made, what="the topic is made anew")
    admin.wait_for_topics([topic])


def test_outcomes_of_a_topic_that_was_made_anew_are_told_apart(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """The old topic's records had the same coordinates as the new one's, but older timestamps."""
    stage.feed()
    stage.label()
    stage.producer.flush()
    make_anew(admin, stage.topics.input)
    stage.feed(9)
    for number in range(9):
        if number != 4:
            stage.publish(number % 3, number // 3)
    found = stage.audit("--to-end", code=1)
    assert (found["broken"], found["consumed"], found["published"]) == (["missing"], 9, 8)
    assert found["examples"]["missing"] == [f"{stage.topics.input}/1/1"]
    assert (found["duplicated"], found["reordered"], found["orphans"]) == (0, 0, 0)
    assert found["unjudged"] == {"outcome of an older topic of this name": 30}


def test_outcomes_of_a_topic_that_was_made_anew_and_is_empty_are_no_orphans(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """Nobody can have read from it what came of them."""
    stage.feed()
    stage.label()
    stage.producer.flush()
    make_anew(admin, stage.topics.input)
    found = stage.audit()
    assert (found["consumed"], found["orphans"]) == (0, 0)
    assert found["unjudged"] == {"outcome of an older topic of this name": 30}


def test_a_commit_beyond_the_end_is_told(stage: Stage) -> None:
    """The sign of a topic that was made anew under a group that still has its old offsets."""
    stage.feed()
    stage.label()
    stage.commit(10, 10, 400)
    found = stage.audit()
    assert found["consumed"] == 30
    (note,) = found["notes"]
    assert note.startswith(f"{stage.topics.input} 2: offset 400 is committed but")
    assert note.endswith("the topic may have been recreated")


def test_an_outcome_is_known_by_its_records_timestamp_and_not_by_its_own(
    broker: Broker, topics: Topics, stage: Stage
) -> None:
    """A timestamp far ahead is not published, but it is no sign of an older topic."""
    ahead = clock.wall_ms() + 3_570_000  # the worker's bound is 59 minutes, the broker's 60
    records = [*texts(20), (b"k", b"no JSON")]
    produce(broker, topics.input, records, timestamp_ms=ahead)
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 21, what="all have an outcome")
    assert max(record.timestamp for record in read(broker, topics.output, 3)) < ahead
    found = stage.audit()
    assert (found["consumed"], found["published"], found["unjudged"]) == (21, 20, {})


def compact(stage: Stage, admin: KafkaAdminClient, topic: str) -> None:
    """Have the topic compacted, in a hurry."""
    if stage.broker.kind != "apache":
        pytest.skip("the embedded broker takes `cleanup.policy` and compacts nothing")
    hurry = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    configs = {"cleanup.policy": "compact", **hurry}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])
    stage.key = b"the same"


def judge_compacted(stage: Stage, admin: KafkaAdminClient, topic: str) -> dict[str, Any]:
    """What the audit says when all is labelled and committed, and `topic` then compacted."""
    compact(stage, admin, topic)
    stage.feed()
    stage.label()
    stage.producer.flush()
    stage.commit(10, 10, 10)
    await_compaction(stage, topic)
    found = stage.audit()
    assert found["notes"] == [f"{topic} is compacted: missing records prove nothing"]
    return found


def await_compaction(stage: Stage, topic: str) -> None:
    sent = read(stage.broker, topic, 3)

    def compacted() -> bool:
        for partition in range(3):  # the segment that is written to is never compacted
            stage.producer.send(topic, b"more", stage.key, partition=partition)
        stage.producer.flush()
        kept = {(record.partition, record.offset) for record in read(stage.broker, topic, 3)}
        return any((record.partition, record.offset) not in kept for record in sent)

    wait_until(compacted, what="the topic is compacted")


def test_outcomes_of_records_that_were_compacted_are_not_judged(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """What is left of the input is, record by record."""
    found = judge_compacted(stage, admin, stage.topics.input)
    gone = found["unjudged"].pop("outcome of a record that compaction may have removed")
    assert gone > 0
    assert (found["consumed"] + gone, found["unjudged"]) == (RECORDS, {})


def test_outcomes_that_were_compacted_are_not_missing(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """Any of them may have been, not only the first ones."""
    found = judge_compacted(stage, admin, stage.topics.output)
    gone = found["unjudged"].pop("record whose result may have been removed")
    assert gone > 0
    assert (found["consumed"] + gone, found["missing"]) == (RECORDS, 0)


@contextmanager
def transactional(stage: Stage) -> Iterator[KafkaProducer]:
    with KafkaProducer(
        bootstrap_servers=stage.broker.bootstrap_servers,
        transactional_id=stage.topics.group,
        transaction_timeout_ms=60_000,
    ) as producer:
        producer.init_transactions()
        yield producer


def test_aborted_transactions_leave_no_trace(stage: Stage) -> None:
    """Neither their records nor the markers at a partition's end count for anything."""
    with transactional(stage) as producer:
        plain, stage.producer = stage.producer, producer
        producer.begin_transaction()
        stage.feed()
        producer.commit_transaction()
        producer.begin_transaction()
        stage.feed(6)
        stage.label()
        producer.abort_transaction()
        producer.begin_transaction()
        stage.label()
        producer.commit_transaction()
        producer.begin_transaction()
        stage.publish(0, 0)
        producer.flush()
        producer.abort_transaction()
        stage.producer = plain
        found = stage.audit("--to-end", "--delivery", "exactly_once")
    assert (found["consumed"], found["duplicated"], found["notes"]) == (30, 0, [])


def test_an_open_transaction_is_told_after_a_bounded_wait(stage: Stage) -> None:
    """What it holds is not guessed at: the reader stops where it begins."""
    kafka = KafkaSettings(bootstrap_servers=stage.broker.bootstrap_servers)
    with transactional(stage) as producer, TopicReader(kafka, patience=1.0) as reader:
        producer.begin_transaction()
        producer.send(stage.topics.output, b"one", partition=0)
        producer.flush()
        seen = list(reader.read(stage.topics.output, {0: 1, 1: 0, 2: 0}))
        assert (seen, reader.unread) == ([], {0: 0})
        producer.commit_transaction()
        assert [one.offset for one in reader.read(stage.topics.output, {0: 1})] == [0]
        assert reader.unread == {}
