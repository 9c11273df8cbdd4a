"""TransactionalSink.close: the main thread says goodbye beside a publish thread that fails."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka.errors import KafkaError

from tests.support.clocks import HandClock
from tests.support.doubles import Producer, outcome
from worker.errors import BrokerAway
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load


class Member:
    """A group that counts this worker in."""

    generation_id = 1

    def current(self, _: object) -> bool:
        return True

    def group_metadata(self) -> Any:
        return self


def sink_of(producer: Producer) -> TransactionalSink:
    settings = load({"delivery": "exactly_once"}, environ={}).settings
    return TransactionalSink(
        settings,
        lambda _: producer,  # type: ignore[arg-type, return-value]
        lambda _: None,
        Member(),
        HandClock(),
    )


def test_the_goodbye_goes_on_while_the_publish_thread_gives_its_producer_up() -> None:
    """It was looked up twice, and the second look found none: AttributeError on the main thread."""
    closing, given_up = threading.Event(), threading.Event()
    main = threading.current_thread()

    def in_step(asked: str) -> None:
        if asked == "commit":
            closing.wait(10)
            raise KafkaError("not answered")
        if asked == "abort" and threading.current_thread() is main:
            closing.set()
            given_up.wait(10)

    producer = Producer(in_step)
    sink = sink_of(producer)
    failed: list[BaseException] = []

    def publish() -> None:
        sink.request_commit()
        try:
            sink.publish([outcome(0)])
        except BrokerAway as error:
            failed.append(error)
        given_up.set()

    thread = threading.Thread(target=publish)
    thread.start()
    while sink._begun_at is None or not producer.sent:
        thread.join(0.01)
    sink.close(5)
    thread.join(10)
    assert failed
    assert producer.ends == ["abort", "abandon", "abandon"]


def test_a_producer_that_can_not_abort_is_given_up_all_the_same() -> None:
    def broken(asked: str) -> None:
        if asked == "abort":
            raise RuntimeError("broken")

    producer = Producer(broken)
    sink = sink_of(producer)
    sink.publish([outcome(0)])
    with pytest.raises(RuntimeError, match="broken"):
        sink.close(5)
    assert producer.ends == ["abort", "abandon"]


def test_nothing_is_left_to_close_after_a_transaction_failed() -> None:
    def failing(asked: str) -> None:
        if asked == "begin":
            raise KafkaError("not now")

    producer = Producer(failing)
    sink = sink_of(producer)
    with pytest.raises(BrokerAway):
        sink.publish([outcome(0)])
    sink.close(5)
    assert producer.ends == ["abandon"]
