"""Both sinks: one record is refused; its mates are sent again in order, and nothing else is."""

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
from worker.kafka_io.refusals import NotSent, refusal_of
from worker.kafka_io.sink import KafkaSink
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load

PATIENCE = 60.0
INVALID = "no such schema"


def letter(offset: int, *, partition: int = 0, key: bytes | None = None) -> Encoded:
    """A dead letter, on its way to topic `dead`."""
    made = outcome(offset, partition=partition)
    return replace(made, topic="dead", reason=DeadLetterReason.NOT_UTF8, key=key)


class Desk:
    """Has a dead letter for each result that is refused; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Refusal | None]] = []

    def replace(self, sent: Encoded, refusal: Refusal | None) -> Encoded:
        self.asked.append((sent.ref.offset, refusal))
        if refusal is None:
            return sent
        if sent.reason is not None:
            raise publish_refused(sent, refusal)
        reason = DeadLetterReason.RESULT_REFUSED
        return replace(sent, topic="dead", reason=reason, key=b"k")


def refuse(producer: Producer, *guilty: int) -> None:
    """The broker names these of all that is not answered; the client drops what it has not sent."""
    for one, future in producer.sent:
        if future.is_done:
            continue
        if one.ref.offset in guilty:
            future.failure(errors.InvalidRecordError(INVALID))
        else:
            future.failure(errors.KafkaError("part of a batch") if guilty else NotSent())


def kinds(producer: Producer) -> list[tuple[str, int]]:
    return [(one.topic, one.ref.offset) for one, _ in producer.sent]


# -- what an answer means ----------------------------------------------------------------------


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
def test_a_refusal_is_of_a_kind_and_has_the_brokers_words(error: Exception, kind: str) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    assert refusal.kind == kind
    assert type(error).__name__ in refusal.message
    assert "None" not in refusal.message


@pytest.mark.parametrize(
    "error", [None, NotSent(), errors.KafkaError("mate"), errors.TopicAuthorizationFailedError("t")]
)
def test_other_errors_are_no_refusals_of_a_record(error: Exception | None) -> None:
    assert refusal_of(error) is None


# -- at least once -----------------------------------------------------------------------------


class Plain:
    """A KafkaSink, the producers that it made, and what it said was acknowledged."""

    def __init__(self) -> None:
        self.clock, self.group, self.desk = HandClock(), Group(), Desk()
        self.made: list[Producer] = []
        self.away: StreamlabelError | None = None
        self.completions: list[Completion] = []
        self.sink = KafkaSink(
            self._make,  # type: ignore[arg-type]
            PATIENCE,
            self.completions.append,
            self.group,
            self.clock,
            self.desk.replace,
        )

    def _make(self) -> Producer:
        if self.away:
            raise self.away
        self.made.append(Producer())
        return self.made[-1]

    @property
    def completed(self) -> list[int]:
        return sorted(o for c in self.completions for o in offsets(c.outcomes))

    def results(self, *some: int) -> None:
        self.sink.publish([outcome(offset) for offset in some])


@pytest.fixture
def fresh() -> Plain:
    return Plain()


@pytest.fixture
def plain() -> Plain:
    """Its dead-letter topic has taken a dead letter with a key, and one without."""
    bench = Plain()
    for key in (None, b"k"):
        bench.sink.publish([letter(0, key=key)])
        bench.made[0].acknowledge()
    bench.made[0].sent.clear()
    bench.completions.clear()
    return bench


def test_the_mates_of_a_refused_record_are_sent_again_in_order(plain: Plain) -> None:
    """And a dead letter takes its place, once what comes before it is acknowledged."""
    plain.results(0)
    plain.made[0].acknowledge()
    plain.results(1, 2, 3)
    plain.results(4)
    refuse(plain.made[0], 2)
    plain.sink.advance()
    first, second = plain.made
    assert first.ends == ["abandon"]
    assert kinds(second) == [("out", 1), ("out", 3), ("out", 4)]
    second.acknowledge()
    plain.sink.advance()
    assert kinds(second)[3:] == [("dead", 2)]
    second.acknowledge(2)
    assert plain.completed == [0, 1, 2, 3, 4]
    assert [refusal.message for _, refusal in plain.desk.asked if refusal] == [
        f"InvalidRecordError: {INVALID}"
    ]


def test_what_one_refusal_teaches_counts_for_all_that_is_sent_again(plain: Plain) -> None:
    plain.results(1, 2, 3)
    refuse(plain.made[0], 1)
    plain.sink.advance()
    assert [offset for offset, refusal in plain.desk.asked if refusal is None] == [2, 3]
    assert plain.desk.asked[0][0] == 1


def test_what_is_on_the_wire_is_answered_before_another_producer_goes_on(plain: Plain) -> None:
    """It may be stored: it would come twice."""
    plain.results(1, 2)
    plain.results(3)
    first = plain.made[0]
    (_, one), (_, two), (_, three) = first.sent
    one.failure(errors.InvalidRecordError(INVALID))
    two.failure(errors.KafkaError("part of a batch"))
    plain.sink.advance()
    plain.results(4)
    assert len(plain.made) == 1
    assert first.offsets == [1, 2, 3]
    three.success(None)
    plain.sink.advance()
    assert plain.completed == [3]
    assert kinds(plain.made[1]) == [("out", 2), ("out", 4)]


def test_an_answer_that_never_comes_is_not_waited_for_for_ever(plain: Plain) -> None:
    plain.results(1)
    plain.results(2)
    plain.made[0].sent[0][1].failure(errors.InvalidRecordError(INVALID))
    plain.sink.advance()
    plain.clock.sleep(PATIENCE)
    plain.sink.advance()
    assert kinds(plain.made[1]) == [("out", 2)]


def test_a_batch_that_is_answered_meanwhile_is_complete_once(plain: Plain) -> None:
    plain.results(1)
    plain.results(2)
    first, second = (future for _, future in plain.made[0].sent)
    second.failure(errors.InvalidRecordError(INVALID))

    def late(asked: str) -> None:
        if asked == "abandon" and not first.is_done:
            first.success(None)

    plain.made[0].before = late
    plain.clock.sleep(1)
    plain.sink.advance()
    plain.clock.sleep(PATIENCE)
    plain.sink.advance()
    assert kinds(plain.made[1]) == [("dead", 2)]
    plain.made[1].acknowledge()
    assert plain.completed == [1, 2]


def test_a_producer_that_can_not_be_had_is_asked_for_again(plain: Plain) -> None:
    plain.results(1, 2)
    refuse(plain.made[0], 1)
    plain.away = BrokerAway("just now")
    for _ in range(2):
        with pytest.raises(BrokerAway):
            plain.sink.advance()
    plain.away = None
    plain.sink.advance()
    assert kinds(plain.made[1]) == [("out", 2)]


def test_where_no_record_was_named_each_is_sent_alone(plain: Plain) -> None:
    """Brokers before 2.4, and others: all of the batch have one error."""
    plain.results(1, 2, 3)
    same = errors.InvalidRecordError(INVALID)
    for _, future in plain.made[0].sent:
        future.failure(same)

    def answer(asked: str) -> None:
        if asked == "settle":
            one, future = plain.made[1].sent[-1]
            if one.ref.offset == 2:
                future.failure(errors.InvalidRecordError(INVALID))
            else:
                future.success(None)

    made = plain._make
    plain.sink._make_publisher = lambda: set_before(made(), answer)  # type: ignore[assignment]
    plain.sink.advance()
    assert plain.made[1].offsets == [1, 2]
    plain.sink._make_publisher = made  # type: ignore[assignment]
    plain.sink.advance()
    assert kinds(plain.made[2]) == [("out", 3)]
    plain.made[2].acknowledge()
    plain.sink.advance()
    plain.made[2].acknowledge(2)
    assert plain.completed == [1, 2, 3]
    assert [o for o, refusal in plain.desk.asked if refusal] == [2]


def set_before(producer: Producer, before: Callable[[str], None]) -> Producer:
    producer.before = before
    return producer


def test_dead_letters_wait_for_the_results_before_them_and_hold_none_up(plain: Plain) -> None:
    """A result that is refused becomes a dead letter, which must not come after a later one."""
    plain.sink.publish([outcome(1), letter(2), outcome(3)])
    plain.sink.publish([outcome(4), letter(5, key=b"k")])
    first = plain.made[0]
    assert kinds(first) == [("out", 1), ("out", 3), ("out", 4)]
    first.acknowledge(1, 3)
    plain.sink.advance()
    assert kinds(first)[3:] == [("dead", 2)]
    refuse(first, 4)
    plain.sink.advance()
    assert kinds(plain.made[1]) == [("dead", 2), ("dead", 4), ("dead", 5)]


@pytest.mark.parametrize("key", [None, b"k"])
def test_the_first_dead_letter_of_its_kind_holds_up_what_follows_it(
    fresh: Plain, key: bytes | None
) -> None:
    """Were it refused, what follows it would be published again at each restart."""
    fresh.sink.publish([outcome(1), letter(2, key=key), outcome(3), letter(4, key=key)])
    fresh.results(5)
    (first,) = fresh.made
    assert kinds(first) == [("out", 1)]
    first.acknowledge()
    fresh.sink.advance()
    assert kinds(first)[1:] == [("dead", 2)]
    first.acknowledge(2)
    fresh.sink.advance()
    assert kinds(first)[2:] == [("out", 3), ("out", 5)]
    first.acknowledge(3)
    fresh.sink.advance()
    assert kinds(first)[4:] == [("dead", 4)]


def test_a_dead_letter_that_is_refused_stops_when_the_rest_is_sent(fresh: Plain) -> None:
    fresh.sink.publish([outcome(1), letter(2), outcome(3), outcome(7, partition=1)])
    fresh.made[0].acknowledge()
    fresh.sink.advance()
    refuse(fresh.made[0], 2)
    with pytest.raises(PublishRefused, match=rf"in\[0\] offset 2, .* bytes: .*{INVALID}"):
        fresh.sink.advance()
    assert kinds(fresh.made[1]) == [("out", 7)]
    with pytest.raises(PublishRefused):
        fresh.results(8)
    assert fresh.made[1].offsets == [7]
    fresh.made[1].acknowledge()
    assert fresh.completed == [1, 7]


def test_another_error_stops_the_worker_and_nothing_is_sent_again(plain: Plain) -> None:
    """What the client drops with it was refused nothing, and is not tried."""
    plain.results(1)
    plain.results(2, 3)
    futures = [future for _, future in plain.made[0].sent]
    futures[0].failure(NotSent())
    for future in futures[1:]:
        future.failure(errors.TopicAuthorizationFailedError("out"))
    plain.sink.advance()
    plain.results(4)
    assert len(plain.made) == 1
    assert plain.made[0].ends == ["halt"]
    assert [type(c.error) for c in plain.completions] == [PublishRefused]
    assert offsets(plain.completions[0].outcomes) == [2, 3]


def test_nothing_is_sent_again_after_the_goodbye(plain: Plain) -> None:
    plain.results(1)
    plain.sink.close(5)
    refuse(plain.made[0], 1)
    plain.sink.advance()
    assert len(plain.made) == 1


def test_a_producer_that_comes_after_the_goodbye_is_given_up(plain: Plain) -> None:
    plain.results(1)
    refuse(plain.made[0], 1)
    made = plain._make

    def late() -> Any:
        plain.sink.close(5)
        return made()

    plain.sink._make_publisher = late
    plain.sink.advance()
    assert plain.made[1].ends == ["abandon"]
    assert plain.made[1].sent == []


def test_without_another_outcome_a_refused_result_stops_the_worker() -> None:
    producers = [Producer(), Producer()]
    makes = iter(producers)
    sink = KafkaSink(lambda: next(makes), 60, print, Group(), HandClock())  # type: ignore[arg-type, return-value]
    sink.publish([outcome(1), outcome(2)])
    refuse(producers[0], 1)
    with pytest.raises(PublishRefused, match="the result of"):
        sink.advance()
    assert producers[1].sent == []


# -- exactly once ------------------------------------------------------------------------------


class Member(Group):
    """A group that counts this worker in."""

    generation_id = 1

    def group_metadata(self) -> Any:
        return self


class Transactional:
    """A TransactionalSink that commits at each batch, and the broker's answers to its commits."""

    def __init__(self) -> None:
        self.desk, self.clock = Desk(), HandClock()
        self.made: list[Producer] = []
        self.answers: list[Callable[[Producer], None]] = []
        self.completions: list[Completion] = []
        settings = load({"delivery": "exactly_once"}, environ={}).settings
        self.sink = TransactionalSink(
            settings,
            self._make,  # type: ignore[arg-type]
            self.completions.append,
            Member(),
            self.clock,
            self.desk.replace,
        )

    def _make(self, _: str) -> Producer:
        self.made.append(Producer(self._before))
        return self.made[-1]

    def _before(self, asked: str) -> None:
        if asked == "commit":
            producer = self.made[-1]
            answer = self.answers.pop(0) if self.answers else Producer.acknowledge
            answer(producer)
            if producer.last_error:
                raise errors.KafkaError("the transaction is in an error state")

    def publish(self, *some: Encoded) -> None:
        self.sink.request_commit()
        self.sink.publish(some)

    @property
    def completed(self) -> list[int]:
        return [o for c in self.completions for o in offsets(c.outcomes)]


def refusing(*guilty: int) -> Callable[[Producer], None]:
    def answer(producer: Producer) -> None:
        refuse(producer, *guilty)
        producer.last_error = errors.InvalidRecordError("One or more records have been rejected")

    return answer


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Transactional:
    monkeypatch.setattr(transactions, "_committed", lambda _, some: dict.fromkeys(some, -1))
    return Transactional()


def test_a_transaction_goes_out_again_with_another_outcome_for_the_refused_record(
    once: Transactional,
) -> None:
    once.answers = [refusing(2)]
    with pytest.raises(BrokerAway, match=f"1 refused records: InvalidRecordError: {INVALID}"):
        once.publish(outcome(1), outcome(2), outcome(3))
    assert once.made[0].ends == ["abort", "abandon"]
    assert once.completed == []
    once.sink.advance()
    assert kinds(once.made[1]) == [("out", 1), ("dead", 2), ("out", 3)]
    assert once.completed == [1, 2, 3]


def test_a_transaction_whose_records_were_not_named_sends_each_alone(once: Transactional) -> None:
    same = errors.InvalidRecordError(INVALID)

    def whole(producer: Producer) -> None:
        for _, future in producer.sent:
            future.failure(same)
        producer.last_error = same

    once.answers = [whole, refusing(2)]
    with pytest.raises(BrokerAway):
        once.publish(outcome(1), outcome(2))
    settled: list[int] = []
    real = once._before

    def before(asked: str) -> None:
        if asked == "settle":
            settled.append(once.made[-1].offsets[-1])
        real(asked)

    once._before = before  # type: ignore[method-assign]
    with pytest.raises(BrokerAway):
        once.sink.advance()
    assert settled == [1, 2]
    once.sink.advance()
    assert kinds(once.made[2]) == [("out", 1), ("dead", 2)]
    assert once.completed == [1, 2]


def test_a_dead_letter_that_is_refused_stops_when_the_rest_is_committed(
    once: Transactional,
) -> None:
    once.answers = [refusing(2)]
    with pytest.raises(BrokerAway):
        once.publish(outcome(1), letter(2), outcome(3), outcome(7, partition=1))
    with pytest.raises(PublishRefused, match=r"in\[0\] offset 2"):
        once.sink.advance()
    assert kinds(once.made[1]) == [("out", 1), ("out", 7)]
    assert once.completed == [1, 7]


def test_a_dead_letter_that_is_refused_alone_stops_at_once(once: Transactional) -> None:
    once.answers = [refusing(2)]
    with pytest.raises(BrokerAway):
        once.publish(letter(2), outcome(3))
    with pytest.raises(PublishRefused):
        once.sink.advance()
    assert len(once.made) == 1
    assert once.completed == []


def test_a_refusal_of_no_record_stops_the_worker(once: Transactional) -> None:
    def odd(producer: Producer) -> None:
        producer.last_error = errors.InvalidRecordError("of whatever")

    once.answers = [odd]
    with pytest.raises(PublishRefused, match="of whatever"):
        once.publish(outcome(1))
    assert once.desk.asked == []


@pytest.mark.parametrize("error", [errors.TopicAuthorizationFailedError("out")])
def test_a_refusal_of_the_topic_stays_what_it_is(once: Transactional, error: Exception) -> None:
    def denied(producer: Producer) -> None:
        producer.last_error = error

    once.answers = [denied]
    with pytest.raises(AccessDenied):
        once.publish(outcome(1))
    assert once.desk.asked == []
