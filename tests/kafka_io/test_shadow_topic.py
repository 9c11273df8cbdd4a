"""ShadowTopic: results are enqueued without waiting; those that do not arrive are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.future import Future

from schemas.dead_letter import DeadLetterReason
from tests.support.doubles import outcome
from worker.errors import TopicMissing
from worker.kafka_io import shadow_topic as module
from worker.kafka_io.shadow_topic import ShadowTopic
from worker.settings import load


class FakeProducer:
    """The client's producer; `before` may raise in place of a send."""

    def __init__(self) -> None:
        self.config = {"max_block_ms": 60_000}
        self.sent: list[tuple[dict[str, Any], Any]] = []
        self.before: Callable[[], None] = lambda: None

    def partitions_for(self, _: str) -> set[int]:
        return {0, 1}

    def send(self, topic: str, value: bytes, **more: Any) -> Any:
        self.before()
        self.sent.append(({"topic": topic, "value": value} | more, Future()))
        return self.sent[-1][1]

    def close(self, timeout: float) -> None:
        raise KafkaTimeoutError("not all were sent")


class FakeAdmin:
    """Knows one topic of two partitions."""

    def __init__(self, _: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def topics(self, names: list[str]) -> dict[str, Any]:
        return {n: SimpleNamespace(partitions=2) if n == "shadow" else None for n in names}


class Bench:
    """A topic with a fake client, and the numbers of lost results that it told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, topic: str = "shadow") -> None:
        self.producer, self.lost = FakeProducer(), list[int]()
        monkeypatch.setattr(module, "Admin", FakeAdmin)
        monkeypatch.setattr(module, "connect", lambda *_, **__: self.producer)
        settings = load({}, environ={}).settings
        self.topic = ShadowTopic(settings, topic, self.lost.append)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_result_goes_to_the_partition_of_its_input_and_nothing_waits(bench: Bench) -> None:
    bench.topic.send([outcome(7, partition=3)])
    ((sent, _),) = bench.producer.sent
    assert (sent["topic"], sent["partition"]) == ("shadow", 1)
    assert bench.producer.config["max_block_ms"] == 0
    assert not bench.lost


def test_a_topic_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TopicMissing, match=r"shadow\.topic = 'other' does not exist"):
        Bench(monkeypatch, "other")


def test_a_result_that_the_broker_refused_is_counted_with_the_next_ones(bench: Bench) -> None:
    bench.topic.send([outcome(1), outcome(2)])
    for _, future in bench.producer.sent:
        future.failure(KafkaError("refused"))
    bench.topic.send([outcome(3)])
    assert bench.lost == [2]


def test_a_client_without_metadata_drops_results(bench: Bench) -> None:
    def away() -> None:
        raise KafkaTimeoutError("no metadata")

    bench.producer.before = away
    bench.topic.send([outcome(1), outcome(2)])
    assert bench.lost == [2]


def test_a_result_that_is_too_large_for_any_topic_is_dropped(bench: Bench) -> None:
    """The encoder makes a dead letter of it, which has no place here."""
    bench.topic.send([replace(outcome(1), reason=DeadLetterReason.RESULT_TOO_LARGE)])
    assert (bench.lost, bench.producer.sent) == ([1], [])


def test_the_results_that_wait_for_a_broker_are_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_UNANSWERED", 3)
    bench.topic.send([outcome(n) for n in range(5)])
    assert (bench.lost, len(bench.producer.sent)) == ([2], 3)
    bench.producer.sent[0][1].success(None)
    bench.topic.send([outcome(5)])
    assert (bench.lost, len(bench.producer.sent)) == ([2], 4)


def test_what_is_not_acknowledged_at_the_end_is_counted(bench: Bench) -> None:
    bench.topic.send([outcome(1), outcome(2)])
    bench.producer.sent[0][1].success(None)
    bench.topic.close()
    assert bench.lost == [1]
