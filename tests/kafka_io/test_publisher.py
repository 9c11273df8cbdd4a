"""Publisher: its requests to the client, and its reading of the responses."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition, errors

from tests.support.clocks import HandClock
from worker.core.records import Encoded, RecordRef
from worker.errors import AccessDenied, BrokerAway, Fenced, PublishRefused, TopicMissing
from worker.kafka_io import publisher as module
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.refusals import NotSent, publish_error
from worker.settings import load

OUT = TopicPartition("out", 1)


class FakeFuture:
    """The client's future of a record."""

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
    """A step of a transaction, with or without a response."""

    def __init__(self, *, answered: bool = True) -> None:
        self.answered = answered
        self.timeouts: list[float] = []

    def wait(self, timeout_ms: float) -> bool:
        self.timeouts.append(timeout_ms)
        return self.answered


class Accumulator:
    """The client's queue; records which batches are aborted, and with which error."""

    def __init__(self) -> None:
        self.aborted: list[tuple[str, Exception]] = []
        self.batches: list[Any] = []
        self._incomplete = SimpleNamespace(all=lambda: self.batches)
        self.appended: list[tuple[Any, ...]] = []
        self.is_new_batch = False

    def append(self, *record: Any) -> tuple[FakeFuture, bool, bool, bool]:
        self.appended.append(record)
        return FakeFuture(), False, self.is_new_batch, False

    def abort_batches(self, error: Exception) -> None:
        self.aborted.append(("all", error))

    def abort_undrained_batches(self, error: Exception) -> None:
        self.aborted.append(("unsent", error))


class FakeProducer:
    """The client's producer, with the parts that a publisher uses."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config = {"max_request_size": options["max_request_size"]}
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[Exception] = []
        self.close_error: Exception | None = None
        self.steps = {"offsets": Step(), "commit": Step(), "abort": Step()}
        self.begun = 0
        self.thread_ended = True
        self.clients_closed = 0
        self._closed = False
        self.known: dict[str, set[int]] = {"out": {0, 1}, "dead": {0}}
        self.waits: list[float] = []
        self.updates = 0
        self._metadata = SimpleNamespace(
            leader_for_partition={OUT: 1}.get,
            partitions_for_topic=self._partitions_for,
            topic_id=lambda _: None,
            request_update=self._request_update,
            _topics={"out", "dead"},
            _last_successful_refresh_ms=0.0,
        )
        self._accumulator = Accumulator()
        self._sender = SimpleNamespace(
            _force_close=False,
            _client=SimpleNamespace(close=self._client_closed),
            add_topic=self._metadata._topics.add,
            force_close=self._force_close,
            is_alive=lambda: not self.thread_ended,
            join=lambda _: None,
            wakeup=self._wakeup,
        )
        self.added: list[TopicPartition] = []
        self._transaction_manager = SimpleNamespace(
            last_error=None,
            send_offsets_to_transaction=lambda *_: self.steps["offsets"],
            begin_commit=lambda: self.steps["commit"],
            begin_abort=lambda: self.steps["abort"],
            is_transactional=lambda: "transactional_id" in options,
            maybe_add_partition_to_transaction=self.added.append,
        )
        self.wakeups = 0

    def _client_closed(self) -> None:
        self.clients_closed += 1

    def _request_update(self) -> None:
        self.updates += 1

    def _partitions_for(self, topic: str) -> set[int] | None:
        return self.known.get(topic)

    def _wakeup(self) -> None:
        self.wakeups += 1

    def _force_close(self) -> None:
        self._sender._force_close = True

    def _wait_on_metadata(self, topic: str, timeout_ms: float) -> set[int]:
        self.waits.append(timeout_ms)
        self._raise()
        return self.known[topic]

    def send(self, topic: str, **record: Any) -> FakeFuture:
        self._raise()
        self.sent.append((topic, record))
        return FakeFuture()

    def _raise(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def init_transactions(self) -> None:
        self.begun += 1

    def begin_transaction(self) -> None:
        self.begun += 10

    def close(self, timeout: float) -> None:
        if self.close_error:
            raise self.close_error


Made = tuple[Publisher, FakeProducer, HandClock]


def made(monkeypatch: pytest.MonkeyPatch, transactional_id: str | None = None, **more: Any) -> Made:
    monkeypatch.setattr(module, "connect", lambda _, __, **options: FakeProducer(**options))
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


def fail_closed() -> None:
    raise RuntimeError("NetworkSelector closed!")


def large() -> Encoded:
    return replace(outcome(partition=5), value=b"x" * 1_000_001)


def test_the_client_retries_without_end_and_bounds_its_requests(
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


def test_nothing_waits_for_a_leader_of_a_topic_that_is_no_longer_an_output(
    pair: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its input was deleted, and so was the topic: a successor takes the other records over."""
    publisher, _, _ = pair
    deleted = TopicPartition("deleted", 0)
    monkeypatch.setattr(publisher, "_topics", {"out": 2, "dead": 1, "deleted": 1})
    assert not publisher.has_leader(deleted)
    monkeypatch.setattr(publisher, "_topics", {"out": 2, "dead": 1})
    assert publisher.has_leader(deleted)


def test_the_client_does_not_limit_the_size_of_a_record(pair: Made) -> None:
    """The client's own limit would name an option that the worker does not have."""
    _, producer, _ = pair
    assert producer.config["max_request_size"] > 32 * 1024 * 1024


def test_a_record_of_a_known_partition_is_enqueued_without_the_clients_checks(
    pair: Made,
) -> None:
    publisher, producer, _ = pair
    publisher.send(outcome(partition=5))
    assert producer._accumulator.appended == [(OUT, 17, b"k", b"value", [("h", b"v")])]
    assert (producer.sent, producer.added, producer.wakeups) == ([], [], 0)
    producer._accumulator.is_new_batch = True
    publisher.send(outcome(partition=5))
    assert producer.wakeups == 1


def test_a_transaction_gets_the_partition_before_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher, producer, _ = made(monkeypatch, "id")
    publisher.send(outcome(partition=5))
    assert producer.added == [OUT]
    assert len(producer._accumulator.appended) == 1


@pytest.mark.parametrize("known", [{}, {"out": {0}}])
def test_a_record_whose_metadata_were_lost_within_a_batch_is_left_for_later(
    pair: Made, known: dict[str, set[int]]
) -> None:
    """`send` once waited for them, 200 s for each record, and a worker that stops waited too."""
    publisher, producer, clock = pair
    before, producer.known = clock.now, known
    with pytest.raises(BrokerAway, match="no broker names partition 1 of topic 'out' now"):
        publisher.send(outcome(partition=5))
    assert (producer.sent, producer._accumulator.appended, producer.waits) == ([], [], [])
    assert (producer.updates, producer.wakeups) == (1, 1), "the client asks at once"
    assert clock.now == before


def test_a_topic_that_lost_partitions_stops_the_worker_once_brokers_have_had_time(
    pair: Made,
) -> None:
    """It was recreated: its records would wait without end for a partition that never comes."""
    publisher, producer, clock = pair
    publisher.await_metadata()
    producer.known = {"out": {0}, "dead": {0}}
    for step in (publisher.await_metadata, lambda: publisher.send(outcome(partition=5))):
        clock.sleep(11)
        with pytest.raises(BrokerAway, match="no broker names partition 1"):
            step()
    producer._metadata._last_successful_refresh_ms = clock.now * 1000
    for step in (publisher.await_metadata, lambda: publisher.send(outcome(partition=5))):
        with pytest.raises(TopicMissing, match=r"'out' has no partition 1 any more.*restart"):
            step()


def test_a_topic_that_lacked_partitions_for_a_moment_begins_anew(pair: Made) -> None:
    publisher, producer, clock = pair
    whole, less = dict(producer.known), {"out": {0}, "dead": {0}}
    for known in (less, whole, less):
        producer.known = known
        clock.sleep(9)
        producer._metadata._last_successful_refresh_ms = clock.now * 1000
        with contextlib.nullcontext() if known is whole else pytest.raises(BrokerAway):
            publisher.await_metadata()


def test_a_removed_topic_that_has_a_record_left_is_asked_for_again(pair: Made) -> None:
    publisher, producer, _ = pair
    producer.known["old"] = {0, 1, 2}
    publisher.send(outcome(partition=5, topic="old"))
    assert (producer.waits, "old" in producer._metadata._topics) == ([2000], True)
    assert producer._accumulator.appended[0][0] == TopicPartition("old", 2), "where it went before"


def test_a_removed_topic_that_was_deleted_too_stops_the_worker(pair: Made) -> None:
    """Its last records would wait without end."""
    publisher, producer, clock = pair
    late = errors.KafkaTimeoutError("no metadata")
    producer.failures = [late]
    with pytest.raises(BrokerAway, match="no broker names partition 0 of topic 'old' now"):
        publisher.send(outcome(topic="old"))
    clock.sleep(11)
    producer._metadata._last_successful_refresh_ms = clock.now * 1000
    producer._metadata._topics.discard("old")
    producer.failures = [late]
    with pytest.raises(TopicMissing, match="'old' has no partition 0"):
        publisher.send(outcome(topic="old"))


def test_an_update_that_finds_the_connections_closed_is_no_fault(pair: Made) -> None:
    publisher, producer, _ = pair
    producer.known = {}
    producer._metadata.request_update = fail_closed
    with pytest.raises(BrokerAway, match="no broker names"):
        publisher.send(outcome())


@pytest.mark.parametrize("closed", [RuntimeError("closed!"), errors.IllegalStateError("closed")])
def test_a_producer_that_has_ended_is_no_fault_of_the_step_that_it_interrupts(
    pair: Made, closed: Exception
) -> None:
    publisher, producer, _ = pair
    publisher.halt()
    producer.failures = [closed]
    with pytest.raises(BrokerAway, match="has ended"):
        publisher.await_metadata()
    producer.failures = [errors.IllegalStateError("closed")]
    with pytest.raises(BrokerAway, match="has ended"):
        publisher.send(large())


def test_the_client_itself_checks_a_large_record(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.send(large())
    (topic, record) = producer.sent[0]
    assert topic == "out"
    assert record == {
        "value": large().value,
        "key": b"k",
        "headers": [("h", b"v")],
        "partition": 1,
        "timestamp_ms": 17,
    }


def test_a_record_is_sent_whole_to_the_partition_of_its_input(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.send(outcome(partition=5))
    publisher.send(outcome(partition=5, topic="dead"))
    fields = (17, b"k", b"value", [("h", b"v")])
    dead = TopicPartition("dead", 0)
    assert producer._accumulator.appended == [(OUT, *fields), (dead, *fields)]


def test_a_record_that_the_client_rejects_is_refused(pair: Made) -> None:
    publisher, producer, _ = pair
    producer.failures = [errors.InvalidRecordError("no")]
    with pytest.raises(PublishRefused, match="of 1000001 bytes to out"):
        publisher.send(large())


def test_a_client_without_room_is_asked_again(pair: Made) -> None:
    publisher, producer, _ = pair
    producer.failures = [errors.KafkaTimeoutError("no buffer")]
    with pytest.raises(BrokerAway, match="no buffer"):
        publisher.send(large())


def test_a_fenced_producer_is_not_a_refused_record() -> None:
    assert isinstance(publish_error(errors.ProducerFencedError()), Fenced)
    assert isinstance(publish_error(errors.InvalidRecordError("x")), PublishRefused)


def test_metadata_are_awaited_before_a_batch(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.await_metadata()
    assert producer.waits == [2000, 2000]  # a stop waits for these
    producer.failures = [errors.KafkaTimeoutError("late")]
    with pytest.raises(BrokerAway):
        publisher.await_metadata()
    producer.failures = [errors.TopicAuthorizationFailedError("out")]
    with pytest.raises(AccessDenied):
        publisher.await_metadata()


def test_settle_waits_for_an_acknowledgement_or_a_refusal(pair: Made) -> None:
    publisher, _, _ = pair
    for future in (FakeFuture(), FakeFuture(errors.InvalidRecordError("no"))):
        publisher.settle(future)
        assert future.waited == [30.0]


def test_a_missing_leader_is_none(pair: Made) -> None:
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
    ("batches", "stalled"),
    [
        ([], False),
        ([batch(1, 1)], True),
        ([batch(1, 1, drained=20)], False),
        ([batch(1, 1), batch(2, 20)], True),  # later batches are ignored
        ([batch(2, 20), batch(1, 1)], True),
        ([batch(1, 1), batch(1, 20)], False),  # the halves of a split batch
    ],
)
def test_a_partition_stalls_with_its_oldest_batch(
    pair: Made, batches: list[Any], stalled: bool
) -> None:
    publisher, producer, _ = pair
    producer._accumulator.batches = batches
    assert publisher.stalled_partitions(10) == ({OUT} if stalled else set())


# -- after a refusal ---------------------------------------------------------------------------


def test_a_refusal_fails_only_unsent_batches(pair: Made) -> None:
    """The client would fail requests in flight too, and stored records would be sent again."""
    _, producer, _ = pair
    accumulator = producer._accumulator
    accumulator.abort_batches(errors.InvalidRecordError("of another"))
    accumulator.abort_undrained_batches(errors.InvalidRecordError("of another"))
    assert [scope for scope, _ in accumulator.aborted] == ["unsent", "unsent"]
    assert all(isinstance(error, NotSent) for _, error in accumulator.aborted)


def test_any_other_error_fails_all_batches(pair: Made) -> None:
    """A missing right must stop the worker, which would otherwise try another producer."""
    _, producer, _ = pair
    denied = errors.ClusterAuthorizationFailedError("no")
    producer._accumulator.abort_batches(denied)
    producer._accumulator.abort_undrained_batches(denied)
    assert producer._accumulator.aborted == [("all", denied), ("unsent", denied)]


# -- transactions ------------------------------------------------------------------------------


def test_a_transaction_is_committed_step_by_step(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.begin_epoch()
    publisher.begin()
    assert producer.begun == 11
    publisher.commit({}, None, [FakeFuture(), FakeFuture()])
    assert [step.timeouts for step in producer.steps.values()] == [[10_000], [10_000], []]


@pytest.mark.parametrize("error", [errors.UnknownProducerIdError("state is lost"), None])
def test_a_commit_fails_if_a_record_was_not_acknowledged(
    pair: Made, error: Exception | None
) -> None:
    """The client itself would report success."""
    publisher, _, _ = pair
    future = FakeFuture(error)
    future.succeeded = lambda: False  # type: ignore[method-assign]
    with pytest.raises(errors.KafkaError, match="state is lost" if error else "not acknowledged"):
        publisher.commit({}, None, [FakeFuture(), future])


@pytest.mark.parametrize("step", ["offsets", "commit"])
def test_a_step_without_a_response_times_out(pair: Made, step: str) -> None:
    publisher, producer, _ = pair
    producer.steps[step] = Step(answered=False)
    with pytest.raises(errors.KafkaTimeoutError):
        publisher.commit({}, None, [])


def test_an_abort_that_fails_is_ignored(pair: Made) -> None:
    publisher, producer, _ = pair
    producer.steps["abort"] = Step(answered=False)
    publisher.abort(2.0)
    assert producer.steps["abort"].timeouts == [2_000]
    assert publisher.last_error is None


# -- the end -----------------------------------------------------------------------------------


def test_records_that_are_not_flushed_in_time_are_dropped_with_an_error(pair: Made) -> None:
    publisher, producer, _ = pair
    publisher.close(1.0)
    assert not producer._sender._force_close
    producer.close_error = errors.KafkaTimeoutError("flush")
    with pytest.raises(BrokerAway):
        publisher.close(1.0)
    assert producer._sender._force_close


@pytest.mark.parametrize("thread_ended", [True, False])
def test_an_abandoned_producer_is_closed_even_if_its_flush_fails(
    pair: Made, thread_ended: bool
) -> None:
    publisher, producer, _ = pair
    producer.thread_ended, producer.close_error = thread_ended, errors.KafkaTimeoutError("flush")
    publisher.abandon()
    assert producer._closed
    assert producer.clients_closed == thread_ended
