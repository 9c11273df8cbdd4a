"""TransactionalSink commits positions without an outcome, also after failed transactions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaError

from tests.support.clocks import HandClock
from worker.core.records import Completion, Encoded, Partition, RecordRef
from worker.errors import BrokerAway
from worker.kafka_io import transactions
from worker.kafka_io.group_offsets import CommittedOffset
from worker.kafka_io.leader_epochs import UNKNOWN
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load

P = Partition("in", 0)
SETTINGS = load({"delivery": "exactly_once"}, environ={}).settings


def outcome(offset: int) -> Encoded:
    return Encoded(RecordRef("in", 0, offset, 1), "out", None, b"x", [], 0, label="a")


def at(offset: int, epoch: int = 1) -> RecordRef:
    return RecordRef("in", 0, offset, epoch)


class PositionsHarness:
    """A sink, and in one object its producers, the group and the source."""

    last_error = None

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transactions: list[dict[int, int]] = []
        self.completions: list[Completion] = []
        self.faults: list[Exception] = []
        self.epoch, self.sent = 1, 0
        self.group: dict[Partition, CommittedOffset] = {}
        self.leader_epoch, self.note = UNKNOWN, ""
        monkeypatch.setattr(
            transactions,
            "committed_offsets",
            lambda _, ps: {p: self.group.get(p, CommittedOffset(-1)) for p in ps},
        )
        self.clock = HandClock()
        made: Any = lambda _: self  # noqa: E731
        self.sink = TransactionalSink(
            SETTINGS,
            made,
            self.completions.append,
            self,
            self.clock,
            note=lambda _: self.read_note(),
            leader_epoch=lambda *_: self.leader_epoch,
        )

    def read_note(self) -> str:
        return self.note

    # the source
    def current(self, ref: RecordRef) -> bool:
        return ref.epoch == self.epoch

    def group_metadata(self) -> Any:
        return SimpleNamespace(generation_id=1)

    # a producer
    def begin_epoch(self) -> None: ...
    def await_metadata(self) -> None: ...
    def begin(self) -> None: ...
    def abort(self, timeout: float) -> None: ...
    def abandon(self) -> None: ...

    def send(self, _: Encoded) -> None:
        self.sent += 1

    def commit(self, offsets: Mapping[Any, Any], *_: object) -> None:
        if self.faults:
            raise self.faults.pop()
        self.transactions.append({tp.partition: to.offset for tp, to in offsets.items()})

    def publish(self, *offsets: int) -> None:
        self.sink.request_commit()
        self.sink.publish([outcome(offset) for offset in offsets])


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> PositionsHarness:
    return PositionsHarness(monkeypatch)


def test_a_position_is_committed_at_once_and_once(harness: PositionsHarness) -> None:
    harness.sink.keep([at(7), RecordRef("in", 3, 2, 1)])
    for _ in range(3):
        harness.sink.advance()
    assert harness.transactions == [{0: 7, 3: 2}]
    assert [(c.outcomes, len(c.kept)) for c in harness.completions] == [((), 2)]


def test_a_later_outcome_replaces_the_position(harness: PositionsHarness) -> None:
    harness.sink.keep([at(5), RecordRef("in", 3, 2, 1)])
    harness.publish(5, 6)
    assert harness.transactions == [{0: 7, 3: 2}]


def test_the_latest_position_of_a_partition_is_committed(harness: PositionsHarness) -> None:
    harness.sink.keep([at(5)])
    harness.sink.keep([at(6)])
    harness.sink.advance()
    assert harness.transactions == [{0: 6}]


def test_a_position_of_an_old_assignment_is_dropped(harness: PositionsHarness) -> None:
    """Another worker may have owned the partition meanwhile and committed a later offset."""
    harness.sink.keep([at(5)])
    harness.epoch = 2
    harness.sink.advance()
    assert (harness.transactions, harness.completions) == ([], [])


def test_a_rebalance_during_the_transaction_drops_the_position(harness: PositionsHarness) -> None:
    harness.sink.keep([at(5)])

    def rebalance() -> None:
        harness.epoch = 2

    harness.begin = rebalance  # type: ignore[method-assign]
    with pytest.raises(BrokerAway, match="changed during a transaction"):
        harness.sink.advance()
    harness.sink.advance()
    assert harness.transactions == []


def test_a_failed_position_is_committed_by_the_next_try(harness: PositionsHarness) -> None:
    """Even at offset 0, if the group has committed nothing."""
    harness.sink.keep([at(0)])
    harness.faults = [KafkaError("not answered")]
    with pytest.raises(BrokerAway):
        harness.sink.advance()
    harness.sink.advance()
    assert harness.transactions == [{0: 0}]


def test_a_position_does_not_go_back_after_a_lost_response(harness: PositionsHarness) -> None:
    """The response was lost, and the transaction contained outcomes after the position."""
    harness.sink.keep([at(5)])
    harness.faults = [KafkaError("the answer is lost")]
    with pytest.raises(BrokerAway):
        harness.publish(5, 6)
    harness.group = {P: CommittedOffset(7)}
    harness.sink.advance()
    assert harness.transactions == []
    (done,) = harness.completions
    assert ([o.ref.offset for o in done.outcomes], done.kept) == ([5, 6], (at(5),))


@pytest.mark.parametrize(("written_by", "sent_again"), [(2, False), (3, True)])
def test_an_offset_of_a_truncated_log_does_not_end_the_outcomes_of_the_new_one(
    harness: PositionsHarness, written_by: int, sent_again: bool
) -> None:
    """A leader that lacked records was elected, and wrote others at offsets 5 and 6."""
    harness.leader_epoch = written_by
    harness.faults = [KafkaError("the answer is lost")]
    harness.group = {P: CommittedOffset(50, leader_epoch=2)}
    with pytest.raises(BrokerAway):
        harness.publish(5, 6)
    harness.sink.advance()
    assert harness.transactions == ([{0: 7}] if sent_again else [])
    assert [o.ref.offset for c in harness.completions for o in c.outcomes] == [5, 6]


@pytest.mark.parametrize(("topic", "sent_again"), [("old", True), ("new", False)])
def test_an_offset_of_a_deleted_topic_does_not_end_the_outcomes_of_the_new_one(
    harness: PositionsHarness, topic: str, sent_again: bool
) -> None:
    """The group has offset 500 of an earlier topic of the name."""
    harness.note = json.dumps({"streamlabel_topic": "new"})
    harness.faults = [KafkaError("aborted")]
    harness.group = {P: CommittedOffset(500, note=json.dumps({"streamlabel_topic": topic}))}
    harness.sink.keep([RecordRef("in", 0, 4, 1)])
    with pytest.raises(BrokerAway):
        harness.publish(5, 6)
    harness.sink.advance()
    assert harness.transactions == ([{0: 7}] if sent_again else [])
    assert [o.ref.offset for c in harness.completions for o in c.outcomes] == [5, 6]


def test_an_offset_of_a_topic_that_is_deleted_now_is_not_noted_as_one_of_the_new_topic(
    harness: PositionsHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll thread fences the old topic's outcomes while the request is made."""

    def remade() -> str:
        harness.epoch += 1
        return "of the new topic"

    monkeypatch.setattr(harness, "read_note", remade)
    with pytest.raises(BrokerAway, match="changed during a transaction"):
        harness.publish(5, 6)
    assert harness.transactions == []
