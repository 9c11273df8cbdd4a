"""Publisher keeps the order when a topic gets more partitions, and follows topics that change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from tests.support.clocks import HandClock
from tests.support.records import raw
from worker.core.records import Encoded, RecordRef
from worker.errors import BrokerAway
from worker.kafka_io import publisher
from worker.kafka_io.publisher import Publisher
from worker.settings import load

SETTINGS = load({}, environ={}).settings


class GrowingProducer:
    """A producer of the client: its topics' partitions, and its unacknowledged batches."""

    def __init__(self) -> None:
        self.numbers = {"out": 1, "dead": 1}
        self.unacknowledged: list[TopicPartition] = []
        self.updates = 0
        self._sender = SimpleNamespace(wakeup=lambda: None, add_topic=lambda _: None)
        self._metadata = SimpleNamespace(
            _topics={"out", "dead", "gone"},
            request_update=self._request_update,
            _last_successful_refresh_ms=0.0,
        )
        self.config: dict[str, Any] = {}
        self._accumulator = SimpleNamespace(
            _incomplete=self, abort_batches=None, abort_undrained_batches=None
        )

    def _request_update(self) -> None:
        self.updates += 1

    def _wait_on_metadata(self, topic: str, _: float) -> set[int]:
        return set(range(self.numbers[topic]))

    def all(self) -> list[Any]:
        return [SimpleNamespace(topic_partition=tp) for tp in self.unacknowledged]


def outcome_for(topic: str, partition: int) -> Encoded:
    ref = RecordRef("in", partition, 0, 1)
    return Encoded(ref, topic, None, raw().value or b"", [], 0)


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> GrowingProducer:
    made = GrowingProducer()
    monkeypatch.setattr(publisher, "connect", lambda *_, **__: made)
    return made


def test_added_partitions_are_used_once_the_old_ones_are_acknowledged(
    producer: GrowingProducer,
) -> None:
    """Otherwise a later result could arrive before an earlier one of its input partition."""
    sending = Publisher(SETTINGS, {"out": 1, "dead": 1}, 1000, HandClock())
    sending.await_metadata()
    producer.numbers["out"] = 3
    producer.unacknowledged = [TopicPartition("dead", 0), TopicPartition("out", 0)]
    with pytest.raises(BrokerAway, match="'out' has 3 partitions now"):
        sending.await_metadata()
    assert sending.partition_of(outcome_for("out", 1)) == 0
    producer.unacknowledged.pop()
    sending.await_metadata()
    partitions = [sending.partition_of(outcome_for(topic, 1)) for topic in ("out", "dead")]
    assert partitions == [1, 0], "the other topic is unchanged"


def test_metadata_that_are_stale_and_name_fewer_partitions_are_asked_for_again(
    producer: GrowingProducer,
) -> None:
    sending = Publisher(SETTINGS, {"out": 3, "dead": 1}, 1000, HandClock())
    with pytest.raises(BrokerAway, match="no broker names partition 2 of topic 'out' now"):
        sending.await_metadata()
    assert producer.updates == 1
    producer.numbers["out"] = 3
    sending.await_metadata()
    assert sending.partition_of(outcome_for("out", 2)) == 2


def test_a_topic_that_is_added_is_written_to_even_in_an_open_transaction(
    producer: GrowingProducer,
) -> None:
    """A transaction waits for metadata when it begins; `send` then waits for those of the topic."""
    topics = {"out": 1, "dead": 1}
    sending = Publisher(SETTINGS, topics, 1000, HandClock())
    sending.await_metadata()
    topics["new"] = producer.numbers["new"] = 3
    assert sending.partition_of(outcome_for("new", 5)) == 2
    producer.numbers["new"] = 4
    sending.await_metadata()
    assert sending.partition_of(outcome_for("new", 5)) == 1


def test_a_topic_that_is_removed_is_no_longer_asked_for(producer: GrowingProducer) -> None:
    """The client would ask for a deleted one ten times a second."""
    topics = {"out": 1, "dead": 1, "gone": 2}
    producer.numbers["gone"] = 2
    sending = Publisher(SETTINGS, topics, 1000, HandClock())
    sending.await_metadata()
    del topics["gone"], producer.numbers["gone"]
    sending.await_metadata()
    assert producer._metadata._topics == {"out", "dead"}
    assert sending.partition_of(outcome_for("gone", 1)) == 0, "fenced before it is sent"


def test_a_removed_topic_is_asked_for_until_its_last_record_is_acknowledged(
    producer: GrowingProducer,
) -> None:
    topics = {"out": 1, "dead": 1, "gone": 1}
    producer.numbers["gone"] = 1
    sending = Publisher(SETTINGS, topics, 1000, HandClock())
    del topics["gone"]
    producer.unacknowledged = [TopicPartition("gone", 0)]
    sending.await_metadata()
    assert "gone" in producer._metadata._topics
    producer.unacknowledged = []
    sending.await_metadata()
    assert "gone" not in producer._metadata._topics


@pytest.mark.parametrize("publishes", [False, True])
def test_a_topic_that_returns_with_fewer_partitions_is_written_to(
    producer: GrowingProducer, publishes: bool
) -> None:
    """The worker forgot it and found it again; it may have published to others meanwhile."""
    topics = {"out": 6, "dead": 1}
    producer.numbers["out"] = 6
    sending = Publisher(SETTINGS, topics, 1000, HandClock())
    sending.await_metadata()
    del topics["out"]
    if publishes:
        sending.await_metadata()
    topics["out"] = producer.numbers["out"] = 2
    sending.await_metadata()
    assert sending.partition_of(outcome_for("out", 5)) == 1
