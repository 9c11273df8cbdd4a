"""`streamlabel topics` and the administration behind it, on a real broker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from tests.conftest import Broker, Topics
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


def test_create_makes_what_is_missing_and_leaves_the_rest(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A new topic gets as many partitions as the existing input topic."""
    admin.delete_topics([topics.dead])
    assert main(["topics", "create", *flags(broker, topics)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"there already  {topics.input} (3 partitions")
    assert lines[2].startswith(f"created        {topics.dead} (3 partitions")
    assert len(lines) == 3


def test_create_warns_where_partitions_differ(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The partition of an outcome then differs from that of its record."""
    admin.delete_topics([topics.output])
    assert main(["topics", "create", "--partitions", "2", *flags(broker, topics)]) == 0
    assert f"warning: {topics.output} has 2 partitions and the input 3" in capsys.readouterr().out


def test_create_shows_the_reason_of_the_broker(our_admin: Admin, topics: Topics) -> None:
    """More replicas than brokers, or a name that Kafka refuses."""
    with pytest.raises(Fatal, match=r"can't create topic .*replica"):
        our_admin.create(f"{topics.group}.more", 1, 99)
    with pytest.raises(Fatal, match="can't create topic") as refused:
        our_admin.create(f"{topics.group}/name", 1)
    assert type(refused.value) is Fatal


def test_describe_shows_offsets_and_lag(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """A partition without a commit lags by all of its records."""
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        for number in range(10):
            producer.send(topics.input, b"text", partition=number % 2)
    with KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=topics.group, enable_auto_commit=False
    ) as consumer:
        consumer.assign([TopicPartition(topics.input, 0)])
        consumer.commit({TopicPartition(topics.input, 0): OffsetAndMetadata(3, "", -1)})
    found = described(broker, topics, capsys)
    rows = found["topics"][topics.input]["partitions"]
    assert [row["records"] for row in rows] == [5, 5, 0]
    assert [row["committed"] for row in rows] == [3, None, None]
    assert [row["lag"] for row in rows] == [2, 5, 0]
    assert found["group"] == {"id": topics.group, "members": [], "lag": 7}
    assert main(["topics", "describe", *flags(broker, topics)]) == 0
    assert "lag 7" in capsys.readouterr().out


def test_describe_names_the_members_and_their_partitions(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the coordinator of the group lists them."""
    with KafkaConsumer(
        topics.input,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=topics.group,
        client_id="one-of-us",
        enable_auto_commit=False,
    ) as consumer:
        while not consumer.assignment():
            consumer.poll(timeout_ms=200)
        (member,) = described(broker, topics, capsys)["group"]["members"]
        assert (member["client_id"], member["partitions"]) == ("one-of-us", [0, 1, 2])
        assert main(["topics", "describe", *flags(broker, topics)]) == 0
        assert "one-of-us at" in capsys.readouterr().out


def test_describe_fails_where_a_topic_is_missing(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It still shows the others, and names the command that makes the missing one."""
    admin.delete_topics([topics.input])
    assert main(["topics", "describe", *flags(broker, topics)]) == 1
    told = capsys.readouterr().out
    assert f"{topics.input}: missing (`streamlabel topics create` makes it)" in told
    assert topics.output in told


def test_offsets_of_a_missing_topic_are_an_error(our_admin: Admin) -> None:
    """An empty answer would look like an empty topic."""
    with pytest.raises(TopicMissing, match="nowhere"):
        our_admin.end_offsets("nowhere")


def test_an_admin_may_be_shared_by_threads(our_admin: Admin, topics: Topics) -> None:
    """The library's client loses answers if shared; ours locks."""
    answers: list[int] = []

    def ask() -> None:
        answers.extend(len(our_admin.end_offsets(topics.input)) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [3] * 40
