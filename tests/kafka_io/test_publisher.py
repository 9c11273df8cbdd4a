"""One producer: what it asks of the client, and what the client's answers mean."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition, errors

from tests.support.clocks import HandClock
from worker.core.records import Encoded, RecordRef
from worker.errors import AccessDenied, BrokerAway, Fenced, PublishRefused
from worker.kafka_io import publisher as module
from worker.kafka_io.publisher import Publisher, publish_error
from worker.kafka_io.refusals import NotSent
from worker.settings import load

OUT = TopicPartition("out", 1)


class Future:
    """What the client returns of a record."""

    def __init__(self, error: Exception | None = None) -> None:
        self.exception = error
        self.waited: list[float] = []

    def succeeded(self) -> bool:
        return self.exception is None

    def get(self, timeout: float) -> None:
        self.waited.append(timeout)
        if self.exception:
            raise self.exception


class Step:
    """A step of a transaction, answered or not."""

    def __init__(self, *, answered: bool = True) -> None:
        self.answered = answered
        self.timeouts: list[float] = []

    def wait(self, timeout_ms: float) -> bool:
        self.timeouts.append(timeout_ms)
        return self.answered


class Accumulator:
    """The client's queue; notes what is aborted, and with what."""

    def __init__(self) -> None:
        self.aborted: list[tuple[str, Exception]] = []
        self.batches: list[Any] = []
        self._incomplete = SimpleNamespace(all=lambda: self.batches)

    def abort_batches(self, error: Exception) -> None:
        self.aborted.append(("all", error))

    def abort_undrained_batches(self, error: Exception) -> None:
        self.aborted.append(("unsent", error))


class Producer:
    """The client, as far as a publisher knows it."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config = {"max_request_size": options["max_request_size"]}
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[Exception] = []
        self.close_error: Exception | None = None
        self.steps = {"offsets": Step(), "commit": Step(), "abort": Step()}
        self.begun = 0
        self.died = True
        self.clients_closed = 0
        self._closed = False
        self._metadata = SimpleNamespace(leader_for_partition={OUT: 1}.get)
        self._accumulator = Accumulator()
        self._sender = SimpleNamespace(
            _force_close=False,
            _client=SimpleNamespace(close=self._client_closed),
            force_close=self._force_close,
            is_alive=lambda: not self.died,
            join=lambda _: None,
            wakeup=lambda: None,
        )
        self._transaction_manager = SimpleNamespace(
            last_error=None,
            send_offsets_to_transaction=lambda *_: self.steps["offsets"],
            begin_commit=lambda: self.steps["commit"],
            begin_abort=lambda: self.steps["abort"],
        )

    def _client_closed(self) -> None:
        self.clients_closed += 1

    def _force_close(self) -> None:
        self._sender._force_close = True

    def partitions_for(self, topic: str) -> set[int]:
        self._raise()
        return {0}

    def send(self, topic: str, **record: Any) -> Future:
        self._raise()
        self.sent.append((topic, record))
        return Future()

    def _raise(self) -> None:
        if self.answers:
            raise self.answers.pop(0)

    def init_transactions(self) -> None:
        self.begun += 1

    def begin_transaction(self) -> None:
        self.begun += 10

    def close(self, timeout: float) -> None:
        if self.close_error:
            raise self.close_error


Made = tuple[Publisher, Producer, HandClock]


def made(monkeypatch: pytest.MonkeyPatch, transactional_id: str | None = None, **more: Any) -> Made:
    monkeypatch.setattr(module, "connect", lambda _, __, **options: Producer(**options))
    clock = HandClock()
    settings = load(more, environ={}).settings
    partitions = {"out": 2, "dead": 1}
    publisher = Publisher(settings, partitions, 3_000, clock, transactional_id)
    return publisher, publisher._producer, clock


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Made:
    return made(monkeypatch)


def outcome(offset: int = 0, partition: int = 0, topic: str = "out") -> Encoded:
    ref = RecordRef("in", partition, offset, 1)
    return Encoded(ref, topic, b"k", b"value", [("h", b"v")], 17)


def test_it_neither_gives_up_nor_sends_more_than_the_topics_take_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, plain, _ = made(monkeypatch)
    assert (plain.options["acks"], plain.options["enable_idempotence"]) == ("all", True)
    assert plain.options["delivery_timeout_ms"] == 2**31 - 1
    assert plain.options["max_request_size"] == 3_000
    assert plain.options["compression_type"] is None
    assert "transactional_id" not in plain.options
    _, other, _ = made(
        monkeypatch, "id", **{"output.compression": "gzip", "transaction_timeout": 7}
    )
    assert other.options["compression_type"] == "gzip"
    assert other.options["transactional_id"] == "id"
    assert other.options["transaction_timeout_ms"] == 7_000


def test_a_record_of_any_size_is_for_the_broker_to_refuse(pair: Made) -> None:
    """The client's own bound would refuse it under the name of a setting that nobody has."""
    _, producer, _ = pair
    assert producer.config["max_request_size"] > 32 * 1024 * 1024


def test_a_record_goes_to_its_own_partition_whole(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.send(outcome(partition=5))
    publisher.send(outcome(partition=5, topic="dead"))
    (topic, record), (_, dead) = producer.sent
    assert topic == "out"
    assert record == {
        "value": b"value",
        "key": b"k",
        "headers": [("h", b"v")],
        "partition": 1,
        "timestamp_ms": 17,
    }
    assert dead["partition"] == 0


def test_metadata_that_vanish_amid_a_batch_are_waited_for(pair: Made) -> None:
    publisher, producer, clock = pair
    producer.answers = [errors.KafkaTimeoutError("metadata"), ValueError("no partition")]
    publisher.send(outcome())
    assert len(producer.sent) == 1
    assert clock.now > 1000


@pytest.mark.parametrize("times", [1, 20])
def test_a_record_that_the_client_does_not_take_is_refused(pair: Made, times: int) -> None:
    """At once where waiting would not help, else after so many tries."""
    publisher, producer, _ = pair
    first = errors.InvalidRecordError("no") if times == 1 else errors.KafkaTimeoutError("late")
    producer.answers = [first] * 20
    with pytest.raises(PublishRefused, match="of 5 bytes to out"):
        publisher.send(outcome())
    assert len(producer.answers) == 20 - times


def test_a_fenced_producer_is_told_apart_from_a_refused_record() -> None:
    assert isinstance(publish_error(errors.ProducerFencedError()), Fenced)
    assert isinstance(publish_error(errors.InvalidRecordError("x")), PublishRefused)


def test_topics_are_known_before_a_batch_is_begun(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.await_metadata()
    producer.answers = [errors.KafkaTimeoutError("late")]
    with pytest.raises(BrokerAway):
        publisher.await_metadata()
    producer.answers = [errors.TopicAuthorizationFailedError("out")]
    with pytest.raises(AccessDenied):
        publisher.await_metadata()


def test_the_answer_to_one_record_is_awaited_whatever_it_is(pair: Made) -> None:
    publisher, _, _ = pair
    for future in (Future(), Future(errors.InvalidRecordError("no"))):
        publisher.settle(future)
        assert future.waited == [30.0]


def test_a_leader_is_one_that_is_there(pair: Made) -> None:
    publisher, producer, _ = pair
    assert publisher.has_leader(OUT)
    assert not publisher.has_leader(TopicPartition("out", 0))
    producer._metadata.leader_for_partition = lambda _: -1
    assert not publisher.has_leader(OUT)


def batch(created: float, last_attempt: float, drained: float | None = None) -> Any:
    return SimpleNamespace(
        topic_partition=OUT, created=created, last_attempt=last_attempt, drained=drained
    )


@pytest.mark.parametrize(
    ("batches", "neglected"),
    [
        ([], False),
        ([batch(1, 1)], True),
        ([batch(1, 1, drained=20)], False),
        ([batch(1, 1), batch(2, 20)], True),  # what is behind the oldest counts for nothing
        ([batch(2, 20), batch(1, 1)], True),
        ([batch(1, 1), batch(1, 20)], False),  # halves of one that was split
    ],
)
def test_a_partition_is_neglected_by_what_is_done_for_its_oldest_batch(
    pair: Made, batches: list[Any], neglected: bool
) -> None:
    publisher, producer, _ = pair
    producer._accumulator.batches = batches
    assert publisher.stalled_partitions(10) == ({OUT} if neglected else set())


# -- after a refusal ---------------------------------------------------------------------------


def test_what_is_on_the_wire_is_not_blamed_for_the_refusal_of_another_record(pair: Made) -> None:
    """The client would fail it at once, although it may be stored: it would be sent again."""
    _, producer, _ = pair
    accumulator = producer._accumulator
    accumulator.abort_batches(errors.InvalidRecordError("of another"))
    accumulator.abort_undrained_batches(errors.InvalidRecordError("of another"))
    assert [which for which, _ in accumulator.aborted] == ["unsent", "unsent"]
    assert all(isinstance(error, NotSent) for _, error in accumulator.aborted)


def test_what_ends_a_producer_for_another_reason_is_told_as_it_is(pair: Made) -> None:
    """A right that is missing must stop the worker, which would else try another producer."""
    _, producer, _ = pair
    denied = errors.ClusterAuthorizationFailedError("no")
    producer._accumulator.abort_batches(denied)
    producer._accumulator.abort_undrained_batches(denied)
    assert producer._accumulator.aborted == [("all", denied), ("unsent", denied)]


# -- transactions ------------------------------------------------------------------------------


def test_a_transaction_is_begun_and_committed_step_by_step(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.begin_epoch()
    publisher.begin()
    assert producer.begun == 11
    publisher.commit({}, None, [Future(), Future()])
    assert [step.timeouts for step in producer.steps.values()] == [[10_000], [10_000], []]


@pytest.mark.parametrize("error", [errors.UnknownProducerIdError("state is lost"), None])
def test_a_commit_whose_records_were_not_acknowledged_is_none(
    pair: Made, error: Exception | None
) -> None:
    """The client would say that all is well."""
    publisher, _, _ = pair
    future = Future(error)
    future.succeeded = lambda: False  # type: ignore[method-assign]
    with pytest.raises(errors.KafkaError, match="state is lost" if error else "not acknowledged"):
        publisher.commit({}, None, [Future(), future])


@pytest.mark.parametrize("silent", ["offsets", "commit"])
def test_a_step_that_is_not_answered_is_given_up(pair: Made, silent: str) -> None:
    publisher, producer, _ = pair
    producer.steps[silent] = Step(answered=False)
    with pytest.raises(errors.KafkaTimeoutError):
        publisher.commit({}, None, [])


def test_an_abort_is_no_more_than_a_courtesy(pair: Made) -> None:
    publisher, producer, _ = pair
    producer.steps["abort"] = Step(answered=False)
    publisher.abort(2.0)
    assert producer.steps["abort"].timeouts == [2_000]
    assert publisher.last_error is None


# -- the end -----------------------------------------------------------------------------------


def test_what_can_not_be_flushed_in_time_is_dropped_and_said(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.close(1.0)
    assert not producer._sender._force_close
    producer.close_error = errors.KafkaTimeoutError("flush")
    with pytest.raises(BrokerAway):
        publisher.close(1.0)
    assert producer._sender._force_close


@pytest.mark.parametrize("died", [True, False])
def test_a_producer_that_is_given_up_is_closed_whatever_it_says(pair: Made, died: bool) -> None:
    publisher, producer, _ = pair
    producer.died, producer.close_error = died, errors.KafkaTimeoutError("flush")
    publisher.abandon()
    assert producer._closed
    assert producer.clients_closed == died
