"""`streamlabel audit` on a real broker: it reports each broken promise, and nothing else."""

from __future__ import annotations

import json
import struct
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
from worker.core.bounds import Bound
from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER, format_source
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.records import Partition
from worker.errors import AccessDenied
from worker.kafka_io.admin import Admin, GroupOffset
from worker.kafka_io.reader import TopicReader
from worker.settings import KafkaSettings

pytestmark = pytest.mark.integration

RECORDS = 30  # ten in each of three partitions
DEAD = ((0, 4), (1, 7), (1, 8))  # partition and offset


@dataclass
class Stage:
    """The producer, the topics and the audit command of one test."""

    broker: Broker
    topics: Topics
    producer: KafkaProducer
    capsys: pytest.CaptureFixture[str]
    key: bytes | None = None  # a compacted topic refuses records without one
    result: bytes = b"{}"
    backfill: str = ""  # group that the outcomes name

    def feed(self, records: int = RECORDS) -> None:
        for number in range(records):
            self.producer.send(self.topics.input, b"text", self.key, partition=number % 3)
        self.producer.flush()

    def publish(self, partition: int, offset: int) -> None:
        headers = [(SOURCE_HEADER, format_source(self.topics.input, partition, offset))]
        headers += [(GROUP_HEADER, self.backfill.encode())] if self.backfill else []
        self.producer.send(
            self.topics.output, self.result, self.key, partition=partition, headers=headers
        )

    def dead_letter(self, partition: int, offset: int, reason: str = "not_json") -> None:
        headers = [
            (SOURCE_HEADER, format_source(self.topics.input, partition, offset)),
            (DEAD_LETTER_HEADER, json.dumps({"reason": reason, "message": "..."}).encode()),
        ]
        headers += [(GROUP_HEADER, self.backfill.encode())] if self.backfill else []
        self.producer.send(self.topics.dead, b"", partition=partition, headers=headers)

    def label(self, *left_out: tuple[int, int]) -> None:
        """Publish outcomes as a worker would, except for those left out."""
        for partition in range(3):
            for offset in range(RECORDS // 3):
                if (partition, offset) in left_out:
                    continue
                if (partition, offset) in DEAD:
                    self.dead_letter(partition, offset)
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
        """Return the JSON that the audit prints; it must exit with `code`."""
        assert self.command("--json", *words) == code
        report: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        assert report["holds"] is (code == 0)
        return report


@pytest.fixture
def stage(broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]) -> Iterator[Stage]:
    # Not idempotent: the embedded broker refuses old sequence numbers in a recreated topic.
    servers = broker.bootstrap_servers
    with KafkaProducer(bootstrap_servers=servers, enable_idempotence=False) as producer:
        yield Stage(broker, topics, producer, capsys)


def test_kept_promises_hold(stage: Stage) -> None:
    """All records below the commits are judged; dead letters are counted by reason."""
    stage.feed()
    stage.label()
    stage.commit(10, 10, 10)
    report = stage.audit("--delivery", "exactly_once")
    assert (report["consumed"], report["published"], report["dead_lettered"]) == (30, 27, 3)
    assert report["reasons"] == {"not_json": 3}
    assert (report["pending"], report["unjudged"], report["notes"]) == (0, {}, [])


def test_the_text_output_has_a_verdict_for_each_promise(stage: Stage) -> None:
    """A broken promise comes with coordinates."""
    stage.feed()
    stage.label((2, 5))
    assert stage.command("--to-end") == 1
    printed = stage.capsys.readouterr().out
    assert "30 input records: 26 labelled, 3 dead letters, 1 without an outcome" in printed
    assert "BROKEN  every record has an outcome" in printed
    assert f"{stage.topics.input}/2/5" in printed
    assert "holds  outcomes keep the order of their partition" in printed


def test_a_missing_outcome_is_found(stage: Stage) -> None:
    """In the first, a middle and the last place."""
    stage.feed()
    stage.label((0, 0), (1, 8), (2, 9))
    report = stage.audit("--to-end", code=1)
    assert (report["broken"], report["missing"], report["consumed"]) == (["missing"], 3, 30)
    assert report["examples"]["missing"] == [
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
def test_a_duplicate_is_counted_and_breaks_the_promise_only_if_forbidden(
    stage: Stage, words: list[str], code: int
) -> None:
    """At least once allows duplicates after a crash; exactly once forbids them."""
    stage.feed()
    stage.label()
    stage.publish(1, 3)
    report = stage.audit("--to-end", *words, code=code)
    assert (report["duplicated"], report["reordered"]) == (1, 0)


def test_a_group_that_may_not_be_read_is_not_needed_to_the_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Admin, group: str) -> None:
        raise AccessDenied(f"Kafka: no right to describe group {group}")

    stage.feed()
    stage.label()
    monkeypatch.setattr(Admin, "group_offsets", refuse)
    assert stage.audit("--to-end")["consumed"] == RECORDS
    assert stage.command() == 1
    assert "no right to describe group" in stage.capsys.readouterr().err


def choose_range(stage: Stage, bound: Bound) -> None:
    """Store the range of partition 0, and that the group has labelled all of it."""
    stage.producer.flush()
    given = {Partition(stage.topics.input, 0): GroupOffset(bound.end, bound.note())}
    with Admin(KafkaSettings(bootstrap_servers=stage.broker.bootstrap_servers)) as admin:
        admin.set_offsets(stage.topics.group, given)


def test_a_worker_is_not_judged_by_what_a_backfill_did(stage: Stage) -> None:
    """The backfill labels records again, late, and has a dead letter of a labelled one."""
    stage.feed()
    stage.label((0, 2))
    stage.backfill = "more"
    stage.publish(0, 1)
    stage.publish(0, 2)
    stage.dead_letter(0, 3)
    stage.dead_letter(0, 1)
    report = stage.audit("--to-end", "--delivery", "exactly_once", code=1)
    assert (report["broken"], report["missing"]) == (["missing"], 1)
    assert report["reasons"] == {"not_json": 3}
    assert report["unjudged"] == {"outcome of another group": 4}


def test_a_backfill_is_not_judged_by_what_the_worker_did(stage: Stage) -> None:
    """Results and dead letters of the worker, and of another backfill, hide no loss."""
    stage.feed()
    stage.label()
    stage.backfill = "more"
    stage.publish(0, 6)
    stage.backfill = stage.topics.group
    stage.dead_letter(0, 3)
    stage.publish(0, 5)
    choose_range(stage, Bound(3, 7, 0, "3..7"))
    report = stage.audit("--delivery", "exactly_once", code=1)
    name = stage.topics.input
    assert report["examples"] == {"missing": [f"{name}/0/4", f"{name}/0/6"]}
    assert (report["published"], report["dead_lettered"], report["broken"]) == (1, 1, ["missing"])
    assert report["unjudged"] == {"outcome of another group": 31}


def test_a_backfill_whose_dead_letters_may_be_gone_is_not_proven(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """After a purge nobody can tell a lost record of the range from a dead one."""
    stage.feed()
    stage.backfill = stage.topics.group
    stage.dead_letter(0, 3)
    for offset in (4, 6):
        stage.publish(0, offset)
    choose_range(stage, Bound(3, 7, 0, "3..7"))
    stage.producer.flush()
    admin.delete_records({TopicPartition(stage.topics.dead, 0): 1})
    report = stage.audit(code=1)
    assert (report["broken"], report["unproven"]) == (["unproven"], 2)
    assert "2 input records without an outcome may be lost" in report["notes"][-1]
    assert stage.command() == 1
    printed = stage.capsys.readouterr().out
    assert "BROKEN  every outcome of the range is still there   2 unproven" in printed


def test_only_the_range_of_a_backfill_is_judged(stage: Stage) -> None:
    """Its group has a note: records around the range need no outcome of it."""
    stage.feed()
    stage.backfill = stage.topics.group
    for offset in range(3, 7):
        stage.publish(0, offset)
    stage.publish(0, 9)
    choose_range(stage, Bound(3, 7, 1, "3..7"))
    report = stage.audit()
    assert (report["consumed"], report["missing"], report["orphans"]) == (4, 0, 0)
    assert report["unjudged"] == {"outcome of a record outside the range": 1}
    assert report["notes"] == ["deleted before this group read them: 1 offset of its range"]


def test_swapped_results_are_found(stage: Stage) -> None:
    stage.feed()
    stage.label((2, 3), (2, 4))
    stage.publish(2, 4)
    stage.publish(2, 3)
    report = stage.audit("--to-end", code=1)
    assert (report["broken"], report["reordered"]) == (["reordered"], 2)


def test_an_outcome_without_a_record_is_found(stage: Stage) -> None:
    """One with coordinates of no record, one with unreadable coordinates."""
    stage.feed()
    stage.label()
    stage.publish(0, 10)
    stage.producer.send(
        stage.topics.dead, b"", partition=1, headers=[(SOURCE_HEADER, b"not/coordinates")]
    )
    report = stage.audit("--to-end", code=1)
    assert (report["broken"], report["orphans"]) == (["orphans"], 2)


def test_records_that_no_worker_wrote_are_not_judged(stage: Stage) -> None:
    """Another producer may write to the output; no promise covers its records."""
    stage.feed()
    stage.label((1, 5))
    for topic in (stage.topics.output, stage.topics.dead):
        stage.producer.send(topic, b"foreign", partition=1, headers=[("trace", b"1/2/3")])
    report = stage.audit("--to-end", code=1)
    assert (report["broken"], report["missing"], report["orphans"]) == (["missing"], 1, 0)
    assert report["unjudged"] == {"record without coordinates, of another producer": 2}


def test_another_workers_results_are_not_judged(stage: Stage) -> None:
    """Two inputs may share an output topic."""
    stage.feed()
    stage.label()
    header = (SOURCE_HEADER, b"elsewhere/0/0")
    stage.producer.send(stage.topics.output, b"{}", partition=0, headers=[header])
    assert stage.audit("--to-end")["unjudged"] == {"outcome of another input topic": 1}


def test_uncommitted_records_are_pending(stage: Stage) -> None:
    """The outcome of such a record may exist or not."""
    stage.feed()
    stage.label((0, 9), (1, 5), (1, 6), (2, 0))
    stage.commit(9, 5)
    report = stage.audit()
    assert (report["consumed"], report["pending"]) == (14, 16)
    assert report["unjudged"] == {"outcome of a record that is not committed yet": 12}


def test_a_group_without_commits_is_an_error(stage: Stage) -> None:
    """A misspelt group must not look like kept promises."""
    stage.feed()
    stage.label()
    assert stage.command() == 1
    assert f"group '{stage.topics.group}' has committed no offset" in stage.capsys.readouterr().err


@pytest.mark.parametrize("role", ["input", "output", "dead"])
def test_a_missing_topic_is_named(stage: Stage, admin: KafkaAdminClient, role: str) -> None:
    """The message has the command that creates it."""
    name = getattr(stage.topics, role)
    admin.delete_topics([name])
    with Admin(KafkaSettings(bootstrap_servers=stage.broker.bootstrap_servers)) as client:
        wait_until(lambda: client.topics([name])[name] is None, what="the topic is deleted")
    assert stage.command("--to-end") == 1
    message = stage.capsys.readouterr().err
    assert f"nothing to audit: missing on {stage.broker.bootstrap_servers}: {name}" in message
    assert "streamlabel topics create" in message


def test_with_an_empty_input_every_promise_holds(stage: Stage) -> None:
    assert stage.audit()["consumed"] == 0


def test_records_that_were_deleted_are_not_judged(stage: Stage, admin: KafkaAdminClient) -> None:
    """Retention may delete a record before its outcome; that breaks no promise."""
    stage.feed()
    stage.label()
    stage.producer.flush()
    admin.delete_records({TopicPartition(stage.topics.input, 0): 4})
    report = stage.audit("--to-end")
    assert report["consumed"] == 26
    assert report["unjudged"] == {"outcome of a record that retention has removed": 4}


def test_outcomes_that_were_deleted_are_not_missing(stage: Stage, admin: KafkaAdminClient) -> None:
    """A gap after the first remaining outcome is still missing."""
    stage.feed()
    stage.label((2, 7))
    stage.producer.flush()
    admin.delete_records({TopicPartition(stage.topics.output, 2): 3})
    report = stage.audit("--to-end", code=1)
    assert report["missing"] == 1
    assert report["unjudged"] == {"record whose result may have been removed": 3}


def test_repeats_whose_first_copy_was_deleted_are_not_reordered(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """A crash repeated outcomes 5 to 9; retention deleted 0 to 7, with their first copies."""
    stage.feed()
    stage.label()
    for offset in range(5, 10):
        stage.publish(2, offset)
    stage.producer.flush()
    admin.delete_records({TopicPartition(stage.topics.output, 2): 8})
    report = stage.audit("--to-end")
    assert (report["reordered"], report["duplicated"]) == (0, 2)
    assert report["unjudged"] == {
        "record whose result may have been removed": 5,
        "outcome whose first copy may have been removed": 3,
    }
    assert report["notes"][0] == f"{stage.topics.output}: 8 offsets removed before this audit"
    assert "5 input records without an outcome may be lost" in report["notes"][1]


def test_if_all_outcomes_were_deleted_none_is_missing(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """Transaction markers that remain change nothing."""
    stage.feed()
    with transactional(stage) as producer:
        plain, stage.producer = stage.producer, producer
        producer.begin_transaction()
        stage.label()
        producer.commit_transaction()
        stage.producer = plain
    # Left in each partition: a result and a marker; a marker; nothing.
    output = [TopicPartition(stage.topics.output, number) for number in range(3)]
    with Admin(KafkaSettings(bootstrap_servers=stage.broker.bootstrap_servers)) as client:
        ends = {0: 10, 1: 9, 2: 11}
        wait_until(
            lambda: client.end_offsets(stage.topics.output) == ends, what="markers are there"
        )
    admin.delete_records(dict(zip(output, (8, 8, 11), strict=True)))
    admin.delete_records({TopicPartition(stage.topics.dead, 0): 1})
    report = stage.audit("--to-end")
    assert (report["published"], report["dead_lettered"], report["missing"]) == (1, 2, 0)
    assert report["unjudged"] == {
        "record whose dead_letter may have been removed": 9,
        "record whose result may have been removed": 18,
    }


def recreate(admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])

    def created() -> bool:
        try:
            admin.create_topics({topic: {"num_partitions": 3}})
        except TopicAlreadyExistsError:  # the deletion ends some time after its answer
            return False
        return True

    wait_until(created, what="the topic is recreated")
    admin.wait_for_topics([topic])


def test_outcomes_from_before_a_topic_was_recreated_are_recognised(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """Records of both topics have the same coordinates; the old ones have older timestamps."""
    stage.feed()
    stage.label()
    stage.producer.flush()
    recreate(admin, stage.topics.input)
    stage.feed(9)
    for number in range(9):
        if number != 4:
            stage.publish(number % 3, number // 3)
    report = stage.audit("--to-end", code=1)
    assert (report["broken"], report["consumed"], report["published"]) == (["missing"], 9, 8)
    assert report["examples"]["missing"] == [f"{stage.topics.input}/1/1"]
    assert (report["duplicated"], report["reordered"], report["orphans"]) == (0, 0, 0)
    assert report["unjudged"] == {"outcome of an older topic of this name": 30}


def test_outcomes_from_before_a_topic_was_recreated_empty_are_not_orphans(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    stage.feed()
    stage.label()
    stage.producer.flush()
    recreate(admin, stage.topics.input)
    report = stage.audit()
    assert (report["consumed"], report["orphans"]) == (0, 0)
    assert report["unjudged"] == {"outcome of an older topic of this name": 30}


def test_a_commit_beyond_the_end_is_noted(stage: Stage) -> None:
    """The topic was recreated, and the group still has its old offsets."""
    stage.feed()
    stage.label()
    stage.commit(10, 10, 400)
    report = stage.audit()
    assert report["consumed"] == 30
    (note,) = report["notes"]
    assert note.startswith(f"{stage.topics.input} 2: offset 400 is committed but")
    assert note.endswith("the topic may have been recreated")


def test_an_outcome_is_matched_by_the_timestamp_of_its_record(
    broker: Broker, topics: Topics, stage: Stage
) -> None:
    """The outcome of a record far ahead of the clock has another timestamp, but is not older."""
    ahead = clock.wall_ms() + 3_570_000  # the worker's bound is 59 minutes, the broker's 60
    records = [*texts(20), (b"k", b"no JSON")]
    produce(broker, topics.input, records, timestamp_ms=ahead)
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 21, what="all have an outcome")
    assert max(record.timestamp for record in read(broker, topics.output, 3)) < ahead
    report = stage.audit()
    assert (report["consumed"], report["published"], report["unjudged"]) == (21, 20, {})


def test_results_in_avro_are_judged_by_their_own_timestamps(stage: Stage) -> None:
    """A text in a binary result is not searched for a timestamp, and nothing needs a registry."""
    text = b'see {"timestamp_ms":7}'
    stage.result = b"\0\0\0\0\1" + bytes([2 * len(text)]) + text + struct.pack("<d", 3.5)
    stage.feed()
    stage.label()
    stage.commit(10, 10, 10)
    report = stage.audit()
    assert (report["consumed"], report["published"], report["unjudged"]) == (30, 27, {})


def compact(stage: Stage, admin: KafkaAdminClient, topic: str) -> None:
    """Have the broker compact the topic as soon as it can."""
    if stage.broker.kind != "apache":
        pytest.skip("the embedded broker accepts `cleanup.policy`, but does not compact")
    soon = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    configs = {"cleanup.policy": "compact", **soon}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])
    stage.key = b"same"


def judge_compacted(stage: Stage, admin: KafkaAdminClient, topic: str) -> dict[str, Any]:
    """Return the audit of a group that has labelled and committed all, after compaction."""
    compact(stage, admin, topic)
    stage.feed()
    stage.label()
    stage.producer.flush()
    stage.commit(10, 10, 10)
    await_compaction(stage, topic)
    report = stage.audit()
    assert report["notes"] == [f"{topic} is compacted: missing records prove nothing"]
    return report


def await_compaction(stage: Stage, topic: str) -> None:
    sent = read(stage.broker, topic, 3)

    def compacted() -> bool:
        for partition in range(3):  # the active segment is never compacted
            stage.producer.send(topic, b"more", stage.key, partition=partition)
        stage.producer.flush()
        kept = {(record.partition, record.offset) for record in read(stage.broker, topic, 3)}
        return any((record.partition, record.offset) not in kept for record in sent)

    wait_until(compacted, what="the topic is compacted")


def test_outcomes_of_records_that_were_compacted_are_not_judged(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """The records that remain are judged."""
    report = judge_compacted(stage, admin, stage.topics.input)
    removed = report["unjudged"].pop("outcome of a record that compaction may have removed")
    assert removed > 0
    assert (report["consumed"] + removed, report["unjudged"]) == (RECORDS, {})


def test_outcomes_that_were_compacted_are_not_missing(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """Compaction may remove any of them, not only the first ones."""
    report = judge_compacted(stage, admin, stage.topics.output)
    removed = report["unjudged"].pop("record whose result compaction may have removed")
    assert removed > 0
    assert (report["consumed"] + removed, report["missing"]) == (RECORDS, 0)


@contextmanager
def transactional(stage: Stage) -> Iterator[KafkaProducer]:
    with KafkaProducer(
        bootstrap_servers=stage.broker.bootstrap_servers,
        transactional_id=stage.topics.group,
        transaction_timeout_ms=60_000,
    ) as producer:
        producer.init_transactions()
        yield producer


def test_aborted_transactions_are_ignored(stage: Stage) -> None:
    """Neither their records nor the markers at the end of a partition count."""
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
        report = stage.audit("--to-end", "--delivery", "exactly_once")
    assert (report["consumed"], report["duplicated"], report["notes"]) == (30, 0, [])


def test_an_open_transaction_is_noted_after_a_bounded_wait(stage: Stage) -> None:
    """The reader stops where the transaction begins."""
    kafka = KafkaSettings(bootstrap_servers=stage.broker.bootstrap_servers)
    with transactional(stage) as producer, TopicReader(kafka, patience=1.0) as reader:
        producer.begin_transaction()
        producer.send(stage.topics.output, b"one", partition=0)
        producer.flush()
        records = list(reader.read(stage.topics.output, {0: 1, 1: 0, 2: 0}))
        assert (records, reader.unread) == ([], {0: 0})
        producer.commit_transaction()

        def read() -> list[int]:
            return [record.offset for record in reader.read(stage.topics.output, {0: 1})]

        # The broker answers before the partition has the transaction's end.
        wait_until(lambda: read() == [0], what="it is readable")
        assert reader.unread == {}
