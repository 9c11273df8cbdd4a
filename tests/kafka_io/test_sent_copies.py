"""Copies in both sinks: a record's outcome and copies share coordinates, and each is sent once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import errors

from schemas import DeadLetterReason
from tests.kafka_io.test_sink import SinkHarness
from tests.support.clocks import HandClock
from tests.support.doubles import Group, Producer, outcome
from worker.core.copies import same_part
from worker.core.records import Completion, Encoded
from worker.core.topic_limits import Refusal
from worker.errors import BrokerAway
from worker.kafka_io import transactions
from worker.kafka_io.group_offsets import CommittedOffset
from worker.kafka_io.refusals import RefusalResolver
from worker.kafka_io.sink import KafkaSink
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load


class Member(Group):
    """A source that is a member of its group."""

    def group_metadata(self) -> Any:
        return SimpleNamespace(generation_id=1)


def parts(offset: int) -> list[Encoded]:
    """Return an outcome and its two copies."""
    main = replace(outcome(offset), copies=2)
    copies = [replace(main, topic=name, route=name, copies=0, is_copy=True) for name in "ab"]
    return [main, *copies]


def sent(producer: Producer) -> list[tuple[str, int]]:
    return [(one.topic, one.ref.offset) for one, _ in producer.sent]


def replacement(refused: Encoded, refusal: Refusal | None) -> Encoded:
    """Return a dead letter in place of what was refused."""
    if refusal is None:
        return refused
    dead = replace(outcome(refused.ref.offset), topic="dead", key=b"k")
    return same_part(refused, replace(dead, reason=DeadLetterReason.RESULT_REFUSED))


def test_a_batch_completes_once_every_copy_is_acknowledged() -> None:
    harness = SinkHarness()
    harness.sink.publish(parts(0))
    (producer,) = harness.made
    for _, future in producer.sent[:2]:
        future.success(None)
    assert harness.completions == []
    producer.sent[2][1].success(None)
    (completion,) = harness.completions
    assert [one.topic for one in completion.outcomes] == ["out", "a", "b"]


def test_a_successor_sends_the_copies_that_its_predecessor_lost() -> None:
    """The outcome was acknowledged, and the copies vanished with their producer."""
    harness = SinkHarness()
    harness.sink.publish(parts(0))
    first = harness.made[0]
    first.sent[0][1].success(None)
    first.forgets = True
    harness.inspect(61.0)
    harness.inspect()
    successor = harness.made[1]
    assert sent(successor) == [("a", 0), ("b", 0)]
    successor.acknowledge()
    (completion,) = harness.completions
    assert len(completion.outcomes) == 3


def test_a_refused_copy_is_replaced_and_the_others_are_sent_as_they_are() -> None:
    completions: list[Completion] = []
    made: list[Producer] = []

    def make() -> Producer:
        made.append(Producer())
        return made[-1]

    sink = KafkaSink(make, 60.0, completions.append, Group(), HandClock(), replacement)  # type: ignore[arg-type]
    sink.publish(parts(0))
    (_, main), (_, first), (_, second) = made[0].sent
    main.success(None)
    first.failure(errors.InvalidRecordError("no"))
    second.failure(errors.KafkaError("part of a batch"))
    sink.advance()
    made[1].acknowledge()
    sink.advance()
    made[1].acknowledge()
    assert sent(made[1]) == [("dead", 0), ("b", 0)], "the first of its kind is sent alone"
    done = [one for completion in completions for one in completion.outcomes]
    told = next(one for one in done if one.reason is not None)
    assert (told.is_copy, told.route) == (True, "a")
    assert sorted(one.identity[1] for one in done) == ["", "a", "b"]


def test_a_copy_that_has_to_be_sent_alone_does_not_hold_up_its_outcome() -> None:
    """One error for a whole batch names no record: each is sent alone in the next try."""
    resolver = RefusalResolver(replacement)
    main, first, second = parts(0)
    error = errors.InvalidRecordError("one of them")
    resolver.replace_refused([main, first, second], [None, error, error])
    assert not resolver.must_be_sent_alone(main)
    assert resolver.must_be_sent_alone(first)
    assert resolver.must_be_sent_alone(second)


def test_a_transaction_has_the_outcome_and_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that fails is sent again with all of them."""
    settings = load({"delivery": "exactly_once", "commit_interval": 0.1}, environ={}).settings
    completions: list[Completion] = []
    made: list[Producer] = []

    def make(_: str) -> Producer:
        made.append(Producer())
        return made[-1]

    monkeypatch.setattr(
        transactions, "committed_offsets", lambda _, ps: dict.fromkeys(ps, CommittedOffset(0))
    )
    clock = HandClock()
    sink = TransactionalSink(settings, make, completions.append, Member(), clock)  # type: ignore[arg-type]
    sink.publish(parts(0))

    def fail(call: str) -> None:
        if call == "commit":
            raise errors.KafkaTimeoutError("lost")

    made[0].before = fail
    clock.sleep(1)
    with pytest.raises(BrokerAway):
        sink.advance()
    assert completions == []
    sink.advance()
    clock.sleep(1)
    sink.advance()
    assert sent(made[1]) == [("out", 0), ("a", 0), ("b", 0)]
    (completion,) = completions
    assert len(completion.outcomes) == 3
