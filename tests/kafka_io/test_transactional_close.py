"""TransactionalSink.close on the main thread, while the publish thread fails."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka.errors import KafkaError

from tests.support.clocks import HandClock
from tests.support.doubles import Producer, outcome
from worker.core.records import Partition
from worker.errors import BrokerAway
from worker.kafka_io import transactions
from worker.kafka_io.group_offsets import CommittedOffset
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load


class ConfirmedMember:
    """A source whose group counts this worker as a member."""

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
        ConfirmedMember(),
        HandClock(),
    )


def test_close_continues_while_the_publish_thread_abandons_its_producer() -> None:
    """`close` read the producer twice, and the second read was None: an AttributeError."""
    closing, abandoned = threading.Event(), threading.Event()
    main = threading.current_thread()

    def synchronize(call: str) -> None:
        if call == "commit":
            closing.wait(10)
            raise KafkaError("not answered")
        if call == "abort" and threading.current_thread() is main:
            closing.set()
            abandoned.wait(10)

    producer = Producer(synchronize)
    sink = sink_of(producer)
    errors: list[BaseException] = []

    def publish() -> None:
        sink.request_commit()
        try:
            sink.publish([outcome(0)])
        except BrokerAway as error:
            errors.append(error)
        abandoned.set()

    thread = threading.Thread(target=publish)
    thread.start()
    while sink._begun_at is None or not producer.sent:
        thread.join(0.01)
    sink.close(5)
    thread.join(10)
    assert errors
    assert producer.ends == ["abort", "abandon", "abandon"]


def test_a_producer_whose_abort_fails_is_abandoned() -> None:
    def fail_abort(call: str) -> None:
        if call == "abort":
            raise RuntimeError("broken")

    producer = Producer(fail_abort)
    sink = sink_of(producer)
    sink.publish([outcome(0)])
    with pytest.raises(RuntimeError, match="broken"):
        sink.close(5)
    assert producer.ends == ["abort", "abandon"]


def test_close_does_nothing_after_a_transaction_failed() -> None:
    def fail_begin(call: str) -> None:
        if call == "begin":
            raise KafkaError("not now")

    producer = Producer(fail_begin)
    sink = sink_of(producer)
    with pytest.raises(BrokerAway):
        sink.publish([outcome(0)])
    sink.close(5)
    assert producer.ends == ["abandon"]


def test_a_producer_that_is_made_during_a_close_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` came while there was none: the new one went on, and was never closed."""
    committed = {Partition("in", 0): CommittedOffset(0)}
    monkeypatch.setattr(transactions, "committed_offsets", lambda *_: committed)
    producer = Producer()
    sink = sink_of(producer)

    def fail_begin(call: str) -> None:
        if call == "begin":
            raise KafkaError("not now")

    def close(call: str) -> None:
        if call == "begin_epoch":
            sink.close(5)

    producer.before = fail_begin
    with pytest.raises(BrokerAway):
        sink.publish([outcome(0)])
    assert producer.ends.pop() == "abandon"
    producer.before = close
    with pytest.raises(BrokerAway, match="closed"):
        sink.advance()
    assert (producer.sent, producer.ends) == ([], ["abandon"])
