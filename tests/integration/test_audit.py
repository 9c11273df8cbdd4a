"""`streamlabel audit` on a real broker: it sees each sabotage, and calls nothing else one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from tests.conftest import Broker, Topics
from worker.cli.main import main
from worker.core.coordinates import SOURCE_HEADER, format_source
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.kafka_io.history import History
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

    def feed(self, records: int = RECORDS) -> None:
        for number in range(records):
            self.producer.send(self.topics.input, b"text", partition=number % 3)
        self.producer.flush()

    def publish(self, partition: int, offset: int) -> None:
        header = (SOURCE_HEADER, format_source(self.topics.input, partition, offset))
        self.producer.send(self.topics.output, b"{}", partition=partition, headers=[header])

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
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
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
    """Whether its coordinates lead nowhere or are not there at all."""
    stage.feed()
    stage.label()
    stage.publish(0, 10)
    stage.producer.send(stage.topics.output, b"who am I", partition=1)
    stage.producer.send(
        stage.topics.dead, b"", partition=1, headers=[(SOURCE_HEADER, b"not/coordinates")]
    )
    found = stage.audit("--to-end", code=1)
    assert (found["broken"], found["orphans"]) == (["orphans"], 3)


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


def test_a_missing_topic_is_named(stage: Stage, admin: KafkaAdminClient) -> None:
    """With the command that makes it."""
    admin.delete_topics([stage.topics.dead])
    assert stage.command("--to-end") == 1
    told = stage.capsys.readouterr().err
    assert stage.topics.dead in told
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
    with transactional(stage) as producer, History(kafka, patience=1.0) as history:
        producer.begin_transaction()
        producer.send(stage.topics.output, b"one", partition=0)
        producer.flush()
        seen = list(history.read(stage.topics.output, {0: 1, 1: 0, 2: 0}))
        assert (seen, history.unread) == ([], {0: 0})
        producer.commit_transaction()
        assert [one.offset for one in history.read(stage.topics.output, {0: 1})] == [0]
        assert history.unread == {}
