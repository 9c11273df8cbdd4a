"""`streamlabel topics`, and the admin client behind it, on a real broker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from tests.conftest import Broker, Topics
from tests.support.workers import delete_topic
from worker.cli.main import main
from worker.errors import Fatal, TopicMissing
from worker.kafka_io.admin import Admin
from worker.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def our_admin(broker: Broker) -> Iterator[Admin]:
    with Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) as admin:
        yield admin


def flags(broker: Broker, topics: Topics) -> list[str]:
    pairs = {
        "--bootstrap-servers": broker.bootstrap_servers,
        "--group-id": topics.group,
        "--input-topic": topics.input,
        "--output-topic": topics.output,
        "--output-dead-letter-topic": topics.dead,
    }
    return [word for pair in pairs.items() for word in pair]


def described(broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert main(["topics", "describe", "--json", *flags(broker, topics)]) == 0
    return json.loads(capsys.readouterr().out)


def test_create_leaves_existing_topics_unchanged(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A new topic gets as many partitions as the existing input."""
    delete_topic(admin, topics.dead)
    assert main(["topics", "create", *flags(broker, topics)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"exists   {topics.input}: 3 partitions, 1 replica; left unchanged"
    assert lines[2] == f"created  {topics.dead}: 3 partitions, 1 replica"
    assert len(lines) == 3


def test_create_says_that_it_ignores_the_size_of_an_existing_topic(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """No topic gets partitions that the operator only asked for a new one."""
    assert main(["topics", "create", "--partitions", "4", *flags(broker, topics)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line == (
        f"exists   {topics.input}: 3 partitions, 1 replica; left unchanged "
        "(--partitions 4 applies to new topics only)"
    )


def test_create_warns_of_different_numbers_of_partitions(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An outcome then goes to another partition than its record's."""
    delete_topic(admin, topics.output)
    assert main(["topics", "create", "--partitions", "2", *flags(broker, topics)]) == 0
    assert f"warning: {topics.output} has 2 partitions and the input 3" in capsys.readouterr().out


def test_create_reports_the_brokers_reason(our_admin: Admin, topics: Topics) -> None:
    """More copies than brokers, or a name that Kafka forbids."""
    with pytest.raises(Fatal, match=r"can't create topic .*replica"):
        our_admin.create(f"{topics.group}.more", 1, 99)
    with pytest.raises(Fatal, match="can't create topic") as refused:
        our_admin.create(f"{topics.group}/name", 1)
    assert type(refused.value) is Fatal


def test_describe_shows_offsets_and_lag(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lag of a partition without a commit is its number of records."""
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for number in range(10):
            producer.send(topics.input, b"text", partition=number % 2)
    with KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=topics.group, enable_auto_commit=False
    ) as consumer:
        consumer.assign([TopicPartition(topics.input, 0)])
        consumer.commit({TopicPartition(topics.input, 0): OffsetAndMetadata(3, "", -1)})
    document = described(broker, topics, capsys)
    rows = document["topics"][topics.input]["partitions"]
    assert [row["records"] for row in rows] == [5, 5, 0]
    assert [row["committed"] for row in rows] == [3, None, None]
    assert [row["lag"] for row in rows] == [2, 5, 0]
    assert document["group"] == {"id": topics.group, "members": [], "lag": 7}
    assert main(["topics", "describe", *flags(broker, topics)]) == 0
    printed = capsys.readouterr().out
    assert f"{topics.input}  1 replica, cleanup policy delete, retention 7 days" in printed
    assert f"group {topics.group}: 0 members\nlag 7" in printed


def test_describe_lists_members_and_their_partitions(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """The group's coordinator knows them."""
    with KafkaConsumer(
        topics.input,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=topics.group,
        client_id="consumer-1",
        enable_auto_commit=False,
    ) as consumer:
        while not consumer.assignment():
            consumer.poll(timeout_ms=200)
        (member,) = described(broker, topics, capsys)["group"]["members"]
        assert (member["client_id"], member["partitions"]) == (
            "consumer-1",
            {topics.input: [0, 1, 2]},
        )
        assert main(["topics", "describe", *flags(broker, topics)]) == 0
        printed = capsys.readouterr().out
        assert f"group {topics.group}: 1 member\n  consumer-1 at" in printed


def test_describe_fails_if_a_topic_is_missing(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It still shows the others, and names the command that creates the missing one."""
    delete_topic(admin, topics.input)
    assert main(["topics", "describe", *flags(broker, topics)]) == 1
    printed = capsys.readouterr().out
    assert f"{topics.input}: missing (create it with `streamlabel topics create`)" in printed
    assert topics.output in printed


def test_offsets_of_a_missing_topic_are_an_error(our_admin: Admin) -> None:
    """An empty answer would look like an empty topic."""
    with pytest.raises(TopicMissing, match="nowhere"):
        our_admin.end_offsets("nowhere")


def test_threads_can_share_an_admin(our_admin: Admin, topics: Topics) -> None:
    """The library's client loses answers when two threads use it; ours serialises them."""
    answers: list[int] = []

    def ask() -> None:
        answers.extend(len(our_admin.end_offsets(topics.input)) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [3] * 40
