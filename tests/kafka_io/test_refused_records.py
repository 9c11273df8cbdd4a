"""Both sinks replace a refused record and send the rest of its batch again, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kafka import errors

from schemas import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.doubles import Group, Producer, offsets, outcome
from worker.core.records import Completion, Encoded
from worker.core.replacement import publish_refused
from worker.core.topic_limits import Refusal
from worker.errors import AccessDenied, BrokerAway, PublishRefused, StreamlabelError
from worker.kafka_io import transactions
from worker.kafka_io.group_offsets import CommittedOffset
from worker.kafka_io.refusals import NotSent, refusal_of
from worker.kafka_io.sink import KafkaSink
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load

PATIENCE = 60.0
INVALID = "no such schema"


def dead_letter(offset: int, *, partition: int = 0, key: bytes | None = None) -> Encoded:
    """Return a dead letter for topic `dead`."""
    result = outcome(offset, partition=partition)
    return replace(result, topic="dead", reason=DeadLetterReason.NOT_UTF8, key=key)


class FakeReplacer:
    """Replaces each refused result with a dead letter; records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Refusal | None]] = []

    def replace(self, sent: Encoded, refusal: Refusal | None) -> Encoded:
        self.calls.append((sent.ref.offset, refusal))
        if refusal is None:
            return sent
        if sent.reason is not None:
            raise publish_refused(sent, refusal)
        reason = DeadLetterReason.RESULT_REFUSED
        return replace(sent, topic="dead", reason=reason, key=b"k")


def refuse(producer: Producer, *invalid: int) -> None:
    """Refuse the unanswered records; the broker names the invalid ones."""
    for sent, future in producer.sent:
        if future.is_done:
            continue
        if sent.ref.offset in invalid:
            future.failure(errors.InvalidRecordError(INVALID))
        else:
            future.failure(errors.KafkaError("part of a batch") if invalid else NotSent())


def kinds(producer: Producer) -> list[tuple[str, int]]:
    return [(sent.topic, sent.ref.offset) for sent, _ in producer.sent]


# -- the response to a record -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.InvalidRecordError(INVALID), "record"),
        (errors.InvalidRecordError("Timestamp 7 of message with offset 0 is out"), "timestamp"),
        (errors.InvalidTimestampError(None), "timestamp"),
        (errors.MessageSizeTooLargeError(None), "size"),
        (errors.RecordListTooLargeError(None), "size"),
    ],
)
def test_a_refusal_has_a_kind_and_the_brokers_message(error: Exception, kind: str) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    assert refusal.kind == kind
    assert type(error).__name__ in refusal.message
    assert "None" not in refusal.message


@pytest.mark.parametrize(
    "error", [None, NotSent(), errors.KafkaError("mate"), errors.TopicAuthorizationFailedError("t")]
)
def test_other_errors_do_not_refuse_a_record(error: Exception | None) -> None:
    assert refusal_of(error) is None


# -- at least once -----------------------------------------------------------------------------


class AtLeastOnceHarness:
    """A KafkaSink, the producers that it made, and its completions."""

    def __init__(self) -> None:
        self.clock, self.group, self.replacer = HandClock(), Group(), FakeReplacer()
        self.made: list[Producer] = []
        self.make_error: StreamlabelError | None = None
        self.completions: list[Completion] = []
        self.sink = KafkaSink(
            self._make,  # type: ignore[arg-type]
            PATIENCE,
            self.completions.append,
            self.group,
            self.clock,
            self.replacer.replace,
        )

    def _make(self) -> Producer:
        if self.make_error:
            raise self.make_error
        self.made.append(Producer())
        return self.made[-1]

    @property
    def completed(self) -> list[int]:
        return sorted(o for c in self.completions for o in offsets(c.outcomes))

    def results(self, *of: int) -> None:
        self.sink.publish([outcome(offset) for offset in of])


@pytest.fixture
def untried() -> AtLeastOnceHarness:
    return AtLeastOnceHarness()


@pytest.fixture
def at_least_once() -> AtLeastOnceHarness:
    """The dead-letter topic has accepted a dead letter with a key, and one without."""
    harness = AtLeastOnceHarness()
    for key in (None, b"k"):
        harness.sink.publish([dead_letter(0, key=key)])
        harness.made[0].acknowledge()
    harness.made[0].sent.clear()
    harness.completions.clear()
    return harness


def test_the_rest_of_a_refused_batch_is_sent_again_in_order(
    at_least_once: AtLeastOnceHarness,
) -> None:
    """A dead letter replaces the refused one, once all earlier results are acknowledged."""
    at_least_once.results(0)
    at_least_once.made[0].acknowledge()
    at_least_once.results(1, 2, 3)
    at_least_once.results(4)
    refuse(at_least_once.made[0], 2)
    at_least_once.sink.advance()
    first, second = at_least_once.made
    assert first.ends == ["abandon"]
    assert kinds(second) == [("out", 1), ("out", 3), ("out", 4)]
    second.acknowledge()
    at_least_once.sink.advance()
    assert kinds(second)[3:] == [("dead", 2)]
    second.acknowledge(2)
    assert at_least_once.completed == [0, 1, 2, 3, 4]
    assert [refusal.message for _, refusal in at_least_once.replacer.calls if refusal] == [
        f"InvalidRecordError: {INVALID}"
    ]


def test_a_refusal_corrects_the_limits_for_the_rest(at_least_once: AtLeastOnceHarness) -> None:
    at_least_once.results(1, 2, 3)
    refuse(at_least_once.made[0], 1)
    at_least_once.sink.advance()
    assert [offset for offset, refusal in at_least_once.replacer.calls if refusal is None] == [2, 3]
    assert at_least_once.replacer.calls[0][0] == 1


def test_requests_in_flight_are_answered_before_another_producer_continues(
    at_least_once: AtLeastOnceHarness,
) -> None:
    """They may be stored, and would be published twice."""
    at_least_once.results(1, 2)
    at_least_once.results(3)
    first = at_least_once.made[0]
    (_, invalid), (_, rest), (_, in_flight) = first.sent
    invalid.failure(errors.InvalidRecordError(INVALID))
    rest.failure(errors.KafkaError("part of a batch"))
    at_least_once.sink.advance()
    at_least_once.results(4)
    assert len(at_least_once.made) == 1
    assert first.offsets == [1, 2, 3]
    in_flight.success(None)
    at_least_once.sink.advance()
    assert at_least_once.completed == [3]
    assert kinds(at_least_once.made[1]) == [("out", 2), ("out", 4)]


def test_the_wait_for_requests_in_flight_is_bounded(at_least_once: AtLeastOnceHarness) -> None:
    at_least_once.results(1)
    at_least_once.results(2)
    at_least_once.made[0].sent[0][1].failure(errors.InvalidRecordError(INVALID))
    at_least_once.sink.advance()
    at_least_once.clock.sleep(PATIENCE)
    at_least_once.sink.advance()
    assert kinds(at_least_once.made[1]) == [("out", 2)]


def test_a_batch_acknowledged_during_the_replacement_completes_once(
    at_least_once: AtLeastOnceHarness,
) -> None:
    at_least_once.results(1)
    at_least_once.results(2)
    first, second = (future for _, future in at_least_once.made[0].sent)
    second.failure(errors.InvalidRecordError(INVALID))

    def late(call: str) -> None:
        if call == "abandon" and not first.is_done:
            first.success(None)

    at_least_once.made[0].before = late
    at_least_once.clock.sleep(1)
    at_least_once.sink.advance()
    at_least_once.clock.sleep(PATIENCE)
    at_least_once.sink.advance()
    assert kinds(at_least_once.made[1]) == [("dead", 2)]
    at_least_once.made[1].acknowledge()
    assert at_least_once.completed == [1, 2]


def test_a_producer_that_can_not_be_made_is_retried(at_least_once: AtLeastOnceHarness) -> None:
    at_least_once.results(1, 2)
    refuse(at_least_once.made[0], 1)
    at_least_once.make_error = BrokerAway("temporary")
    for _ in range(2):
        with pytest.raises(BrokerAway):
            at_least_once.sink.advance()
    at_least_once.make_error = None
    at_least_once.sink.advance()
    assert kinds(at_least_once.made[1]) == [("out", 2)]


def test_if_no_record_was_named_each_is_sent_alone(at_least_once: AtLeastOnceHarness) -> None:
    """The whole batch has one error, as from brokers before 2.4."""
    at_least_once.results(1, 2, 3)
    same = errors.InvalidRecordError(INVALID)
    for _, future in at_least_once.made[0].sent:
        future.failure(same)

    def answer(call: str) -> None:
        if call == "settle":
            sent, future = at_least_once.made[1].sent[-1]
            if sent.ref.offset == 2:
                future.failure(errors.InvalidRecordError(INVALID))
            else:
                future.success(None)

    made = at_least_once._make
    at_least_once.sink._make_publisher = lambda: set_before(made(), answer)  # type: ignore[assignment]
    at_least_once.sink.advance()
    assert at_least_once.made[1].offsets == [1, 2]
    at_least_once.sink._make_publisher = made  # type: ignore[assignment]
    at_least_once.sink.advance()
    assert kinds(at_least_once.made[2]) == [("out", 3)]
    at_least_once.made[2].acknowledge()
    at_least_once.sink.advance()
    at_least_once.made[2].acknowledge(2)
    assert at_least_once.completed == [1, 2, 3]
    assert [o for o, refusal in at_least_once.replacer.calls if refusal] == [2]


def set_before(producer: Producer, before: Callable[[str], None]) -> Producer:
    producer.before = before
    return producer


def test_dead_letters_wait_for_earlier_results_but_results_do_not_wait(
    at_least_once: AtLeastOnceHarness,
) -> None:
    """A refused result becomes a dead letter, which must not arrive after a later one."""
    at_least_once.sink.publish([outcome(1), dead_letter(2), outcome(3)])
    at_least_once.sink.publish([outcome(4), dead_letter(5, key=b"k")])
    first = at_least_once.made[0]
    assert kinds(first) == [("out", 1), ("out", 3), ("out", 4)]
    first.acknowledge(1, 3)
    at_least_once.sink.advance()
    assert kinds(first)[3:] == [("dead", 2)]
    refuse(first, 4)
    at_least_once.sink.advance()
    assert kinds(at_least_once.made[1]) == [("dead", 2), ("dead", 4), ("dead", 5)]


@pytest.mark.parametrize("key", [None, b"k"])
def test_the_first_dead_letter_of_its_kind_blocks_later_records(
    untried: AtLeastOnceHarness, key: bytes | None
) -> None:
    """If it were refused, each restart would publish all later records again."""
    untried.sink.publish([outcome(1), dead_letter(2, key=key), outcome(3), dead_letter(4, key=key)])
    untried.results(5)
    (first,) = untried.made
    assert kinds(first) == [("out", 1)]
    first.acknowledge()
    untried.sink.advance()
    assert kinds(first)[1:] == [("dead", 2)]
    first.acknowledge(2)
    untried.sink.advance()
    assert kinds(first)[2:] == [("out", 3), ("out", 5)]
    first.acknowledge(3)
    untried.sink.advance()
    assert kinds(first)[4:] == [("dead", 4)]


def test_a_refused_dead_letter_stops_the_worker_once_the_rest_is_sent(
    untried: AtLeastOnceHarness,
) -> None:
    untried.sink.publish([outcome(1), dead_letter(2), outcome(3), outcome(7, partition=1)])
    untried.made[0].acknowledge()
    untried.sink.advance()
    refuse(untried.made[0], 2)
    with pytest.raises(PublishRefused, match=rf"in\[0\] offset 2, .* bytes: .*{INVALID}"):
        untried.sink.advance()
    assert kinds(untried.made[1]) == [("out", 7)]
    with pytest.raises(PublishRefused):
        untried.results(8)
    assert untried.made[1].offsets == [7]
    untried.made[1].acknowledge()
    assert untried.completed == [1, 7]


def test_any_other_error_stops_the_worker(at_least_once: AtLeastOnceHarness) -> None:
    """The records that the client drops with it were not refused, and are not sent again."""
    at_least_once.results(1)
    at_least_once.results(2, 3)
    futures = [future for _, future in at_least_once.made[0].sent]
    futures[0].failure(NotSent())
    for future in futures[1:]:
        future.failure(errors.TopicAuthorizationFailedError("out"))
    at_least_once.sink.advance()
    at_least_once.results(4)
    assert len(at_least_once.made) == 1
    assert at_least_once.made[0].ends == ["halt"]
    assert [type(c.error) for c in at_least_once.completions] == [PublishRefused]
    assert offsets(at_least_once.completions[0].outcomes) == [2, 3]


def test_a_closed_sink_sends_nothing_again(at_least_once: AtLeastOnceHarness) -> None:
    at_least_once.results(1)
    at_least_once.sink.close(5)
    refuse(at_least_once.made[0], 1)
    at_least_once.sink.advance()
    assert len(at_least_once.made) == 1


def test_a_producer_made_during_the_close_is_abandoned(at_least_once: AtLeastOnceHarness) -> None:
    at_least_once.results(1)
    refuse(at_least_once.made[0], 1)
    made = at_least_once._make

    def late() -> Any:
        at_least_once.sink.close(5)
        return made()

    at_least_once.sink._make_publisher = late
    with pytest.raises(BrokerAway, match="closed"):
        at_least_once.sink.advance()
    assert at_least_once.made[1].ends == ["abandon"]
    assert at_least_once.made[1].sent == []


def test_a_refused_result_without_a_replacement_stops_the_worker() -> None:
    producers = [Producer(), Producer()]
    makes = iter(producers)
    sink = KafkaSink(lambda: next(makes), 60, print, Group(), HandClock())  # type: ignore[arg-type, return-value]
    sink.publish([outcome(1), outcome(2)])
    refuse(producers[0], 1)
    with pytest.raises(PublishRefused, match="the result of"):
        sink.advance()
    assert producers[1].sent == []


# -- exactly once ------------------------------------------------------------------------------


class ConfirmingGroup(Group):
    """A group that counts this worker as a member."""

    generation_id = 1

    def group_metadata(self) -> Any:
        return self


class ExactlyOnceHarness:
    """A TransactionalSink that commits each batch, and the broker's responses to its commits."""

    def __init__(self) -> None:
        self.replacer, self.clock = FakeReplacer(), HandClock()
        self.made: list[Producer] = []
        self.answers: list[Callable[[Producer], None]] = []
        self.completions: list[Completion] = []
        settings = load({"delivery": "exactly_once"}, environ={}).settings
        self.sink = TransactionalSink(
            settings,
            self._make,  # type: ignore[arg-type]
            self.completions.append,
            ConfirmingGroup(),
            self.clock,
            self.replacer.replace,
        )

    def _make(self, _: str) -> Producer:
        self.made.append(Producer(self._before))
        return self.made[-1]

    def _before(self, call: str) -> None:
        if call == "commit":
            producer = self.made[-1]
            answer = self.answers.pop(0) if self.answers else Producer.acknowledge
            answer(producer)
            if producer.last_error:
                raise errors.KafkaError("the transaction is in an error state")

    def publish(self, *outcomes: Encoded) -> None:
        self.sink.request_commit()
        self.sink.publish(outcomes)

    @property
    def completed(self) -> list[int]:
        return [o for c in self.completions for o in offsets(c.outcomes)]


def refusing(*invalid: int) -> Callable[[Producer], None]:
    def answer(producer: Producer) -> None:
        refuse(producer, *invalid)
        producer.last_error = errors.InvalidRecordError("One or more records have been rejected")

    return answer


@pytest.fixture
def exactly_once(monkeypatch: pytest.MonkeyPatch) -> ExactlyOnceHarness:
    monkeypatch.setattr(
        transactions,
        "committed_offsets",
        lambda _, partitions: dict.fromkeys(partitions, CommittedOffset(-1)),
    )
    return ExactlyOnceHarness()


def test_a_transaction_is_retried_with_a_replacement_for_the_refused_record(
    exactly_once: ExactlyOnceHarness,
) -> None:
    exactly_once.answers = [refusing(2)]
    with pytest.raises(BrokerAway, match=rf"refused records \(1\): InvalidRecordError: {INVALID}"):
        exactly_once.publish(outcome(1), outcome(2), outcome(3))
    assert exactly_once.made[0].ends == ["abort", "abandon"]
    assert exactly_once.completed == []
    exactly_once.sink.advance()
    assert kinds(exactly_once.made[1]) == [("out", 1), ("dead", 2), ("out", 3)]
    assert exactly_once.completed == [1, 2, 3]


def test_a_transaction_sends_each_record_alone_if_none_was_named(
    exactly_once: ExactlyOnceHarness,
) -> None:
    same = errors.InvalidRecordError(INVALID)

    def whole(producer: Producer) -> None:
        for _, future in producer.sent:
            future.failure(same)
        producer.last_error = same

    exactly_once.answers = [whole, refusing(2)]
    with pytest.raises(BrokerAway):
        exactly_once.publish(outcome(1), outcome(2))
    settled: list[int] = []
    real = exactly_once._before

    def before(call: str) -> None:
        if call == "settle":
            settled.append(exactly_once.made[-1].offsets[-1])
        real(call)

    exactly_once._before = before  # type: ignore[method-assign]
    with pytest.raises(BrokerAway):
        exactly_once.sink.advance()
    assert settled == [1, 2]
    exactly_once.sink.advance()
    assert kinds(exactly_once.made[2]) == [("out", 1), ("dead", 2)]
    assert exactly_once.completed == [1, 2]


def test_a_refused_dead_letter_stops_the_worker_once_the_rest_is_committed(
    exactly_once: ExactlyOnceHarness,
) -> None:
    exactly_once.answers = [refusing(2)]
    with pytest.raises(BrokerAway):
        exactly_once.publish(outcome(1), dead_letter(2), outcome(3), outcome(7, partition=1))
    with pytest.raises(PublishRefused, match=r"in\[0\] offset 2"):
        exactly_once.sink.advance()
    assert kinds(exactly_once.made[1]) == [("out", 1), ("out", 7)]
    assert exactly_once.completed == [1, 7]


def test_a_refused_dead_letter_without_other_records_stops_at_once(
    exactly_once: ExactlyOnceHarness,
) -> None:
    exactly_once.answers = [refusing(2)]
    with pytest.raises(BrokerAway):
        exactly_once.publish(dead_letter(2), outcome(3))
    with pytest.raises(PublishRefused):
        exactly_once.sink.advance()
    assert len(exactly_once.made) == 1
    assert exactly_once.completed == []


def test_a_refusal_that_names_no_record_stops_the_worker(exactly_once: ExactlyOnceHarness) -> None:
    def without_name(producer: Producer) -> None:
        producer.last_error = errors.InvalidRecordError("unknown")

    exactly_once.answers = [without_name]
    with pytest.raises(PublishRefused, match="unknown"):
        exactly_once.publish(outcome(1))
    assert exactly_once.replacer.calls == []


@pytest.mark.parametrize("error", [errors.TopicAuthorizationFailedError("out")])
def test_a_refusal_of_the_topic_is_unchanged(
    exactly_once: ExactlyOnceHarness, error: Exception
) -> None:
    def denied(producer: Producer) -> None:
        producer.last_error = error

    exactly_once.answers = [denied]
    with pytest.raises(AccessDenied):
        exactly_once.publish(outcome(1))
    assert exactly_once.replacer.calls == []
