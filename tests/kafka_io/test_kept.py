"""TransactionalSink: positions that are committed without an outcome, whatever becomes of the try."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaError

from tests.support.clocks import HandClock
from worker.core.records import Completion, Encoded, Partition, RecordRef
from worker.errors import BrokerAway
from worker.kafka_io import transactions
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load

P = Partition("in", 0)
SETTINGS = load({"delivery": "exactly_once"}, environ={}).settings


def outcome(offset: int) -> Encoded:
    return Encoded(RecordRef("in", 0, offset, 1), "out", None, b"x", [], 0, label="a")


def at(offset: int, epoch: int = 1) -> RecordRef:
    return RecordRef("in", 0, offset, epoch)


class Scene:
    """A sink, its producers in one, the group and the source."""

    last_error = None

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transactions: list[dict[int, int]] = []
        self.told: list[Completion] = []
        self.faults: list[Exception] = []
        self.epoch, self.sent = 1, 0
        self.group: dict[Partition, int] = {}
        monkeypatch.setattr(
            transactions, "_committed", lambda _, ps: {p: self.group.get(p, -1) for p in ps}
        )
        self.clock = HandClock()
        made: Any = lambda _: self  # noqa: E731
        self.sink = TransactionalSink(SETTINGS, made, self.told.append, self, self.clock)

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
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_position_gets_a_transaction_of_its_own_at_once_and_once(scene: Scene) -> None:
    scene.sink.keep([at(7), RecordRef("in", 3, 2, 1)])
    for _ in range(3):
        scene.sink.advance()
    assert scene.transactions == [{0: 7, 3: 2}]
    assert [(c.outcomes, len(c.kept)) for c in scene.told] == [((), 2)]


def test_a_later_outcome_in_the_same_transaction_goes_before_the_position(scene: Scene) -> None:
    scene.sink.keep([at(5), RecordRef("in", 3, 2, 1)])
    scene.publish(5, 6)
    assert scene.transactions == [{0: 7, 3: 2}]


def test_the_latest_position_of_a_partition_counts(scene: Scene) -> None:
    scene.sink.keep([at(5)])
    scene.sink.keep([at(6)])
    scene.sink.advance()
    assert scene.transactions == [{0: 6}]


def test_a_position_of_an_assignment_that_is_over_is_dropped(scene: Scene) -> None:
    """Its partition may have been another worker's meanwhile, which is further by now."""
    scene.sink.keep([at(5)])
    scene.epoch = 2
    scene.sink.advance()
    assert (scene.transactions, scene.told) == ([], [])


def test_an_assignment_that_ends_under_the_transaction_takes_it_along(scene: Scene) -> None:
    scene.sink.keep([at(5)])

    def rebalance() -> None:
        scene.epoch = 2

    scene.begin = rebalance  # type: ignore[method-assign]
    with pytest.raises(BrokerAway, match="changed during a transaction"):
        scene.sink.advance()
    scene.sink.advance()
    assert scene.transactions == []


def test_a_position_that_failed_is_committed_by_the_next_try(scene: Scene) -> None:
    """At 0 too, where the group has committed nothing."""
    scene.sink.keep([at(0)])
    scene.faults = [KafkaError("not answered")]
    with pytest.raises(BrokerAway):
        scene.sink.advance()
    scene.sink.advance()
    assert scene.transactions == [{0: 0}]


def test_a_position_that_was_committed_after_all_takes_nothing_back(scene: Scene) -> None:
    """The answer got lost, and outcomes that came after the position were part of it."""
    scene.sink.keep([at(5)])
    scene.faults = [KafkaError("the answer is lost")]
    with pytest.raises(BrokerAway):
        scene.publish(5, 6)
    scene.group = {P: 7}
    scene.sink.advance()
    assert scene.transactions == []
    (done,) = scene.told
    assert ([o.ref.offset for o in done.outcomes], done.kept) == ([5, 6], (at(5),))
