"""`streamlabel dead-letters` on a real broker: each action, both ways of replay, the audit."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
from kafka import KafkaAdminClient, TopicPartition

from tests.conftest import Broker, Topics
from tests.support.workers import (
    ObedientModel,
    clock,
    count,
    flags,
    needs_kafka,
    produce,
    read,
    running,
    wait_until,
)
from worker.cli.main import main
from worker.core.records import Partition
from worker.core.replay import REPLAY_HEADER, Replay, parse_replay
from worker.kafka_io.admin import Admin, GroupOffset
from worker.settings import KafkaSettings, child_environment, options
from worker.signals import STOPPING

pytestmark = pytest.mark.integration

RECORDS = 30
BAD = 3  # every third text is a bad one
WHEN_MS = clock.wall_ms() - 3_600_000  # within the topics' retention


_GROUP = {"kafka.group_id"}
_AUDITED = {
    *("kafka.bootstrap_servers", "kafka.group_id"),
    *("input.topic", "output.topic", "output.dead_letter_topic"),
}


class Poisoned(Exception):
    """The planted fault."""


def fail_on_bad(texts: list[str]) -> None:
    if any("bad" in text for text in texts):
        raise Poisoned


def posts(number: int = RECORDS) -> list[tuple[bytes | None, bytes | None]]:
    return [
        (
            b"key-%d" % n,
            json.dumps({"text": f"{'bad' if n % BAD == 0 else 'good'} post {n}"}).encode(),
        )
        for n in range(number)
    ]


def command(broker: Broker, topics: Topics, *words: str) -> list[str]:
    """Return a command; the group of a replay would be the one on the command line."""
    given = flags(broker, topics)
    return [
        *("dead-letters", *words),
        *(f"{o.flag}={given[o.path]}" for o in options() if o.path in given.keys() - _GROUP),
    ]


@dataclass
class Ended:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def run(topics: Topics, words: Sequence[str]) -> Ended:
    """Run a command in this process: many processes would take long on a busy machine."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "12")
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    group = {"STREAMLABEL_KAFKA_GROUP_ID": topics.group}
    with patch.dict(os.environ, group), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(words)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Ended(code, *(one.buffer.getvalue().decode() for one in (out, err)))  # type: ignore[attr-defined]


def letters(broker: Broker, topics: Topics, *words: str, code: int = 0) -> Ended:
    """Run a command; it must exit with `code`."""
    ended = run(topics, command(broker, topics, *words))
    assert ended.returncode == code, ended
    return ended


def audit(broker: Broker, topics: Topics, *words: str) -> dict[str, Any]:
    """Return the report of `streamlabel audit`, which must hold."""
    given = flags(broker, topics)
    paths = [o for o in options() if o.path in given and o.path in _AUDITED]
    ended = run(topics, ["audit", "--json", *words, *(f"{o.flag}={given[o.path]}" for o in paths)])
    assert ended.returncode == 0, ended
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def document(broker: Broker, topics: Topics, *words: str, code: int = 0) -> dict[str, Any]:
    """Return the JSON that a command prints."""
    printed = letters(broker, topics, *words, "--json", code=code).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


def label_all(
    broker: Broker, topics: Topics, outcomes: int, model: ObedientModel, **more: Any
) -> None:
    """Run a worker until there are as many outcomes."""
    with running(broker, topics, model, max_dead_letter_ratio=1.0, **more) as worker:
        wait_until(lambda: count(broker, topics) >= outcomes, 90, "all are labelled")
        worker.stop()


def die(broker: Broker, topics: Topics, **more: Any) -> None:
    """Let every third record become a dead letter."""
    headers = [("trace", b"\x00\xff"), ("empty", b"")]
    produce(broker, topics.input, posts(), headers=headers, timestamp_ms=WHEN_MS)
    label_all(broker, topics, RECORDS, ObedientModel(fail_on_bad), **more)


def numbers(report: dict[str, Any]) -> tuple[int, ...]:
    names = ("consumed", "published", "dead_lettered", "replayed", "duplicated", "missing")
    assert not report["orphans"] + report["reordered"]
    return tuple(report[name] for name in names)


def replays(records: Sequence[Any]) -> list[Replay | None]:
    return [parse_replay(dict(record.headers).get(REPLAY_HEADER)) for record in records]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_copies_are_labelled_and_each_record_counts_once(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    """Bytes, key, headers, timestamp and partition are those of the record that was dead."""
    die(broker, topics, delivery=delivery)
    before = read(broker, topics.input, topics.partitions)
    told = document(broker, topics, "replay", "--delivery", delivery)
    assert (told["read"], told["replayed"], told["left"]) == (10, 10, 0)
    copies = read(broker, topics.input, topics.partitions)
    copies = [copy for copy, replay in zip(copies, replays(copies), strict=True) if replay]
    assert len(copies) == 10
    originals = {(r.topic, r.partition, r.offset): r for r in before}
    for copy, replay in zip(copies, replays(copies), strict=True):
        assert replay is not None
        record = originals[replay.source]
        assert (copy.key, copy.value, copy.timestamp) == (record.key, record.value, WHEN_MS)
        assert copy.partition == record.partition
        assert copy.headers == [*record.headers, replay.header]
    pending = audit(broker, topics, "--delivery", delivery)
    assert numbers(pending) == (30, 20, 10, 0, 0, 0)
    assert pending["pending"] >= 10
    label_all(broker, topics, RECORDS + 10, ObedientModel(), delivery=delivery)
    report = audit(broker, topics, "--delivery", delivery)
    assert numbers(report) == (30, 30, 0, 10, 0, 0)
    assert report["reasons"] == {}


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_dead_letters_are_labelled_at_once_with_the_coordinates_of_their_records(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    """The bundled model has no trouble with the texts."""
    die(broker, topics, delivery=delivery)
    told = document(
        broker, topics, "replay", "--label", "--delivery", delivery, "--model", "bundled"
    )
    assert (told["read"], told["replayed"], told["left"]) == (10, 10, 0)
    results = read(broker, topics.output, topics.partitions)
    found = [(r, replay) for r, replay in zip(results, replays(results), strict=True) if replay]
    assert len(found) == 10
    for result, replay in found:
        source = json.loads(result.value)["source"]
        assert (source["topic"], source["partition"], source["offset"]) == replay.source
        assert replay.attempt == 1
    report = audit(broker, topics, "--delivery", delivery)
    assert numbers(report) == (30, 30, 0, 10, 0, 0)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_replay_that_is_killed_loses_nothing(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    """It is killed in the middle, and the same command goes on; exactly once repeats nothing."""
    needs_kafka(broker, "never forgets a member that was killed")
    die(broker, topics, delivery=delivery)
    words = ("replay", "--delivery", delivery, "--rate", "1", "--kafka-session-timeout", "6")
    # A transaction that the kill leaves open hides the copies after it for so long.
    words += ("--transaction-timeout", "2")
    before = len(read(broker, topics.input, topics.partitions))
    killed = subprocess.Popen(
        [sys.executable, "-P", "-m", "worker", *command(broker, topics, *words)],
        stderr=subprocess.DEVNULL,
        env=child_environment(STREAMLABEL_KAFKA_GROUP_ID=topics.group),
    )
    wait_until(
        lambda: len(read(broker, topics.input, topics.partitions)) > before, 120, "a copy is there"
    )
    killed.kill()
    killed.wait(30)
    told = document(broker, topics, *words, "--rate", "100")
    assert told["left"] == 0
    copies = len(read(broker, topics.input, topics.partitions)) - before
    label_all(broker, topics, RECORDS + copies, ObedientModel(), delivery=delivery)
    report = audit(broker, topics, "--delivery", delivery)
    assert numbers(report) == (30, 30, 0, 10, copies - 10, 0)
    assert copies == 10 or delivery == "at_least_once"


@pytest.mark.parametrize("way", [(), ("--label", "--model", "bundled")], ids=["copy", "label"])
def test_a_replay_that_a_crash_repeats_is_told_as_duplicates(
    broker: Broker, topics: Topics, way: tuple[str, ...]
) -> None:
    """At least once: acknowledged, but not committed before the crash."""
    die(broker, topics)
    group, partitions = f"{topics.group}-replay", range(topics.partitions)
    assert document(broker, topics, "replay", *way)["replayed"] == 10
    with Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) as admin:
        lost = {Partition(topics.dead, number): GroupOffset(0, "") for number in partitions}
        admin.set_offsets(group, lost)
    assert document(broker, topics, "replay", *way)["replayed"] == 10
    if not way:
        label_all(broker, topics, RECORDS + 20, ObedientModel())
    report = audit(broker, topics)
    assert numbers(report) == (30, 30, 0, 10, 10, 0)
    assert report["holds"]


def test_attempts_are_counted_and_limited(broker: Broker, topics: Topics) -> None:
    """Through the input, then at once; those that were tried often enough stay and are told."""
    die(broker, topics)
    for number in (1, 2):
        assert document(broker, topics, "replay")["replayed"] == 10
        outcomes = RECORDS + 10 * number
        label_all(broker, topics, outcomes, ObedientModel(fail_on_bad))
    dead = read(broker, topics.dead, topics.partitions)
    attempts = sorted(replay.attempt if replay else 0 for replay in replays(dead))
    assert attempts == [0] * 10 + [1] * 10 + [2] * 10
    assert numbers(audit(broker, topics)) == (30, 20, 10, 0, 0, 0)
    refused = document(broker, topics, "replay", "--max-attempts", "2")
    assert (refused["replayed"], refused["refused"]) == (0, {"attempts": 10})
    again = ("replay", "--again", "--label", "--model", "bundled")
    would = document(broker, topics, *again, "--dry-run")
    assert (would["would_replay"], would["refused"]) == (10, {"superseded": 20})
    assert document(broker, topics, *again)["replayed"] == 10
    assert numbers(audit(broker, topics)) == (30, 30, 0, 10, 0, 0)
    assert document(broker, topics, *again)["refused"] == {"labelled": 30}


@pytest.mark.parametrize("way", [(), ("--label", "--model", "bundled")], ids=["copy", "label"])
def test_a_record_with_two_dead_letters_is_replayed_once(
    broker: Broker, topics: Topics, way: tuple[str, ...]
) -> None:
    """Two groups labelled the same range, and both failed: only the newest is replayed."""
    die(broker, topics)
    with running(
        broker,
        topics,
        ObedientModel(fail_on_bad),
        kafka__group_id=f"{topics.group}-second",
        max_dead_letter_ratio=1.0,
    ) as worker:
        wait_until(lambda: count(broker, topics) >= 2 * RECORDS, 90, "all have failed twice")
        worker.stop()
    assert len(read(broker, topics.dead, topics.partitions)) == 20
    would = document(broker, topics, "replay", *way, "--dry-run")
    assert (would["would_replay"], would["refused"]) == (10, {"superseded": 10})
    done = document(broker, topics, "replay", *way)
    assert (done["replayed"], done["refused"], done["left"]) == (10, {"superseded": 10}, 0)
    assert document(broker, topics, "replay", *way)["read"] == 0


def test_a_limit_leaves_the_rest_for_the_next_run(broker: Broker, topics: Topics) -> None:
    """And filters pass what they leave out."""
    die(broker, topics)
    first = document(broker, topics, "replay", "--limit", "4")
    assert (first["replayed"], first["left"]) == (4, 6)
    dry = document(broker, topics, "replay", "--dry-run")
    assert (dry["would_replay"], dry["reasons"]) == (6, {"model_failed": 6})
    none = document(broker, topics, "replay", "--reason", "not_json")
    assert (none["filtered"], none["replayed"], none["left"]) == (6, 0, 0)
    assert document(broker, topics, "replay")["read"] == 0
    rest = document(broker, topics, "replay", "--again", "--rate", "100")
    assert rest["replayed"] == 10


def test_copies_may_go_elsewhere(broker: Broker, topics: Topics, make_topics: Any) -> None:
    """To an input of another worker: this audit still has the dead letters."""
    die(broker, topics)
    other: Topics = make_topics(partitions=2)
    told = document(broker, topics, "replay", "--to", other.input, "--exactly-once")
    assert told["targets"] == {other.input: 10}
    copies = read(broker, other.input, 2)
    sources = [replay.source[1] % 2 for replay in replays(copies) if replay]
    assert [copy.partition for copy in copies] == sources
    label_all(broker, other, 10, ObedientModel())
    assert numbers(audit(broker, other)) == (10, 10, 0, 0, 0, 0)
    assert numbers(audit(broker, topics)) == (30, 20, 10, 0, 0, 0)


def test_list_show_and_the_purge_report_agree(broker: Broker, topics: Topics) -> None:
    """The report's file is what Kafka's own tool takes; nothing is deleted."""
    die(broker, topics)
    listed = document(broker, topics, "list")
    (group,) = listed["groups"]
    assert (group["name"], group["number"]) == ("model_failed", 10)
    assert [fault["exception"] for fault in group["faults"]] == ["Poisoned"]
    assert document(broker, topics, "list", "--exception", "Other")["filtered"] == 10
    record = next(r for r in read(broker, topics.input, topics.partitions) if b"bad" in r.value)
    place = f"{record.topic}/{record.partition}/{record.offset}"
    assert letters(broker, topics, "show", place, "--raw").stdout.encode() == record.value
    shown = letters(broker, topics, "show", place).stdout
    assert "model_failed" in shown
    assert "trace: [U+0000]\\xff" in shown
    missing = letters(broker, topics, "show", f"{topics.dead}/0/999", code=1)
    assert "no dead letter" in missing.stderr
    report = document(broker, topics, "purge-report")
    assert report["delete_records"]["partitions"] == []
    assert document(broker, topics, "replay", "--partition", "0")["replayed"] > 0
    label_all(broker, topics, RECORDS + 1, ObedientModel())
    report = document(broker, topics, "purge-report")
    first = report["partitions"][0]
    assert (first["open"], first["labelled"]) == (0, first["purge_below"])
    with Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) as admin:
        assert set(admin.start_offsets(topics.dead).values()) == {0}
    assert [one["partition"] for one in report["delete_records"]["partitions"]] == [0]


def test_the_audit_holds_after_a_purge(
    broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    """The results of the replays show that the records had an outcome."""
    needs_kafka(broker, "deletes no records")
    die(broker, topics)
    assert document(broker, topics, "replay")["replayed"] == 10
    label_all(broker, topics, RECORDS + 10, ObedientModel())
    report = document(broker, topics, "purge-report")
    offsets = {
        TopicPartition(one["topic"], one["partition"]): one["offset"]
        for one in report["delete_records"]["partitions"]
    }
    assert sum(offsets.values()) == 10
    admin.delete_records(offsets)
    assert document(broker, topics, "list")["dead_letters"] == 0
    assert numbers(audit(broker, topics)) == (30, 30, 0, 10, 0, 0)


def test_places_that_are_no_place_are_named(broker: Broker, topics: Topics) -> None:
    """The command reads, sends and commits nothing."""
    nowhere = replace(topics, dead=f"{topics.dead}.none")
    assert f"{nowhere.dead}' does not exist" in letters(broker, nowhere, "list", code=1).stderr
    to = ("replay", "--to")
    assert "of --to does not exist" in letters(broker, topics, *to, "none", code=1).stderr
    assert "is an output" in letters(broker, topics, *to, topics.output, code=2).stderr
    own = letters(broker, topics, "replay", "--group-id", topics.group, code=2)
    assert "is the group of the worker itself" in own.stderr
    assert "is no TOPIC/PARTITION/OFFSET" in letters(broker, topics, "show", "7", code=2).stderr
    last = topics.partitions - 1
    for action in ("list", "replay", "purge-report"):
        unknown = letters(broker, topics, action, "--partition", f"{last},98,99", code=2)
        told = f"--partition: {topics.dead} has no partition 98, 99; there are 0 to {last}"
        assert told in unknown.stderr
