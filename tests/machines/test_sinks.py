"""Both sinks as state machines: every outcome is stored, in order, and completes once.

The oracle is the log of the output topic. A producer's records reach it in the order in which they
were sent; whether the sink hears of that is another matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kafka import errors

from tests.kafka_io.test_refused_records import FakeReplacer
from tests.support.clocks import HandClock
from tests.support.doubles import Group, Producer, outcome
from worker.core.records import Completion, Partition, RecordRef
from worker.errors import BrokerAway
from worker.kafka_io import transactions
from worker.kafka_io.group_offsets import CommittedOffset
from worker.kafka_io.refusals import NotSent
from worker.kafka_io.sink import KafkaSink
from worker.kafka_io.transactions import TransactionalSink
from worker.settings import load

_PATIENCE = 60.0
_ENOUGH = 40  # rounds in which all that waits is sent


class _Output:
    """An output topic: offsets of input records, in the order in which they were stored."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.stored: dict[int, int] = {}  # records of each producer that are in the log

    def store(self, producer: Producer, number: int) -> list[Any]:
        """Store the next records of a producer; return their futures."""
        at = self.stored.get(id(producer), 0)
        part = producer.sent[at : at + number]
        self.stored[id(producer)] = at + len(part)
        self.log += [(one.topic, one.ref.offset) for one, _ in part]
        return [future for _, future in part]

    def first_places(self) -> dict[str, list[int]]:
        """Return the offsets of each topic, where each was stored first."""
        places: dict[str, list[int]] = {}
        for topic, offset in self.log:
            if offset not in places.setdefault(topic, []):
                places[topic].append(offset)
        return places


class Sink(RuleBasedStateMachine):
    """A producer that is slow, stalls, is replaced, or refuses; a group that is in doubt."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.group, self.output = HandClock(), Group(), _Output()
        self.producers: list[Producer] = []
        self.completions: list[Completion] = []
        self.replacer = FakeReplacer()
        self.away = False
        self.next = 0
        self.sink = KafkaSink(
            self._producer,  # type: ignore[arg-type]
            _PATIENCE,
            self.completions.append,
            self.group,
            self.clock,
            self.replacer.replace,
        )

    def _producer(self) -> Producer:
        self._reach("a new producer")
        self.producers.append(Producer(self._reach_metadata))
        return self.producers[-1]

    def _reach(self, what: str) -> None:
        if self.away:
            raise BrokerAway(f"{what}: no broker is reached")

    def _reach_metadata(self, call: str) -> None:
        if call == "await_metadata":
            self._reach(call)

    @property
    def live(self) -> list[Producer]:
        return [one for one in self.producers if not one.ends and not one.forgets]

    @rule(number=st.integers(1, 3))
    def publish(self, number: int) -> None:
        batch = [outcome(offset) for offset in range(self.next, self.next + number)]
        self.next += number
        with contextlib.suppress(BrokerAway):
            self.sink.publish(batch)

    @rule()
    def advance(self) -> None:
        with contextlib.suppress(BrokerAway):
            self.sink.advance()

    @rule(seconds=st.sampled_from((1.0, _PATIENCE / 4, _PATIENCE + 1)))
    def wait(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.advance()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), number=st.integers(1, 4), heard=st.booleans())
    def store(self, data: st.DataObject, number: int, *, heard: bool) -> None:
        """A broker stores records; the answer arrives, or does not yet."""
        for future in self.output.store(data.draw(st.sampled_from(self.live)), number):
            if heard and not future.is_done:
                future.success(None)

    @rule()
    def answer_late(self) -> None:
        for producer in self.live:
            for _, future in producer.sent[: self.output.stored.get(id(producer), 0)]:
                if not future.is_done:
                    future.success(None)

    @precondition(lambda self: self.live)
    @rule()
    def refuse(self) -> None:
        """The broker refuses the next record that is not stored; the client drops the rest."""
        producer = self.live[-1]
        rest = producer.sent[self.output.stored.get(id(producer), 0) :]
        waiting = [(one, future) for one, future in rest if not future.is_done]
        if not waiting or waiting[0][0].reason is not None:
            return
        self.answer_late()
        waiting[0][1].failure(errors.InvalidRecordError("no such schema"))
        for _, future in waiting[1:]:
            future.failure(NotSent())
        producer.sent = [pair for pair in producer.sent if pair not in rest]

    @rule()
    def stall(self) -> None:
        for producer in self.live[-1:]:
            producer.forgets = True

    @rule(doubt=st.booleans())
    def doubt(self, *, doubt: bool) -> None:
        """The group has not confirmed this worker for a while, or has again."""

        def unconfirmed(_: RecordRef) -> None:
            raise BrokerAway("the group has not confirmed this worker")

        self.group.before = unconfirmed if doubt else lambda _: None

    @rule(away=st.booleans())
    def reach(self, *, away: bool) -> None:
        self.away = away

    @invariant()
    def completions_are_stored(self) -> None:
        stored = {offset for _, offset in self.output.log}
        assert {one.ref.offset for c in self.completions for one in c.outcomes} <= stored

    @invariant()
    def outcomes_keep_their_order(self) -> None:
        for offsets in self.output.first_places().values():
            assert offsets == sorted(offsets)

    def teardown(self) -> None:
        """Once the faults are over, everything is stored and completes."""
        self.doubt(doubt=False)
        self.reach(away=False)
        for _ in range(_ENOUGH):
            self.wait(_PATIENCE / 4)
            for producer in self.live:
                for future in self.output.store(producer, 1_000):
                    if not future.is_done:
                        future.success(None)
            self.answer_late()
        completed = [one.ref.offset for c in self.completions for one in c.outcomes]
        assert sorted(completed) == list(range(self.next))
        self.completions_are_stored()
        self.outcomes_keep_their_order()


_SETTINGS = load(
    {"delivery": "exactly_once", "kafka.group_id": "g", "commit_interval": 1.0}, environ={}
).settings
_STEPS = ("await_metadata", "begin", "send", "commit", "abort", "abandon", "begin_epoch")
_FAILURES: dict[str, Callable[[], Exception]] = {
    "away": lambda: BrokerAway("no broker is reached"),
    "timeout": lambda: errors.KafkaTimeoutError("a step was not answered in time"),
    "fenced": errors.ProducerFencedError,
    "generation": lambda: errors.CommitFailedError("the generation is over"),
    "connection": lambda: errors.KafkaConnectionError("the connection is lost"),
}


class _Membership:
    generation_id = 1


class Transactions(RuleBasedStateMachine):
    """Every step of a transaction may fail, before or after it took effect."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.group = HandClock(), Group()
        self.group.group_metadata = _Membership  # type: ignore[method-assign]
        self.stored: list[int] = []  # visible to `read_committed`
        self.committed = -1  # of the group
        self.completions: list[Completion] = []
        self.fault: tuple[str, str, bool] | None = None
        self.next = 0
        self._patch = mock.patch.object(transactions, "committed_offsets", self._offsets)
        self._patch.start()
        self.sink = TransactionalSink(
            _SETTINGS, self._producer, self.completions.append, self.group, self.clock
        )

    def _offsets(self, _: object, partitions: set[Partition]) -> dict[Partition, CommittedOffset]:
        self._fail("committed_offsets")
        return dict.fromkeys(partitions, CommittedOffset(self.committed))

    def _producer(self, _: str) -> Any:
        producer = Producer(self._fail)

        def commit(offsets: dict[Any, Any], _: object, sent: object) -> None:
            step = "commit"
            if self.fault and self.fault[0] == step and not self.fault[2]:
                self._fail(step)
            self.stored += producer.offsets
            self.committed = max(at.offset for at in offsets.values())
            producer.sent.clear()
            for future in list(sent):  # type: ignore[call-overload]
                if not future.is_done:
                    future.success(None)
            self._fail(step)

        producer.commit = commit  # type: ignore[method-assign,assignment]
        return producer

    def _fail(self, step: str) -> None:
        if self.fault and self.fault[0] == step:
            failure, self.fault = _FAILURES[self.fault[1]](), None
            raise failure

    @rule(
        step=st.sampled_from((*_STEPS, "committed_offsets")),
        kind=st.sampled_from(sorted(_FAILURES)),
        late=st.booleans(),
    )
    def fail_next(self, step: str, kind: str, *, late: bool) -> None:
        """Let a step fail: `late` after its effect, so that only the answer is lost."""
        self.fault = (step, kind, late)

    @rule(number=st.integers(1, 3))
    def publish(self, number: int) -> None:
        batch = [outcome(offset) for offset in range(self.next, self.next + number)]
        self.next += number
        with contextlib.suppress(BrokerAway, errors.KafkaError):
            self.sink.publish(batch)

    @rule(position=st.booleans())
    def keep(self, *, position: bool) -> None:
        """The poll thread keeps the position behind a gap, when nothing is in flight."""
        done = {one.ref.offset for c in self.completions for one in c.outcomes}
        if position and len(done) == self.next:
            self.next += 1  # a marker has this offset
            self.stored.append(self.next - 1)
            self.sink.keep([RecordRef("in", 0, self.next, 1)])

    @rule()
    def request(self) -> None:
        self.sink.request_commit()

    @rule(seconds=st.sampled_from((0.0, 0.5, 2.0)))
    def advance(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        with contextlib.suppress(BrokerAway, errors.KafkaError):
            self.sink.advance()

    @invariant()
    def nothing_is_visible_twice_or_out_of_order(self) -> None:
        assert self.stored == sorted(set(self.stored))

    @invariant()
    def the_groups_offset_goes_with_the_results(self) -> None:
        assert self.committed in (-1, *(offset + 1 for offset in self.stored))
        done = [one.ref.offset for c in self.completions for one in c.outcomes]
        assert set(done) <= set(self.stored)

    def teardown(self) -> None:
        self.fault = None
        for _ in range(_ENOUGH):
            self.advance(2.0)
        self._patch.stop()
        assert self.stored == list(range(self.next))
        done = [one.ref.offset for c in self.completions for one in c.outcomes]
        assert len(done) == len(set(done))
        assert self.committed in (-1, self.next)


TestSink = Sink.TestCase
TestSink.settings = hypothesis_settings(max_examples=150, stateful_step_count=30, deadline=None)
TestTransactions = Transactions.TestCase
TestTransactions.settings = hypothesis_settings(
    max_examples=150, stateful_step_count=30, deadline=None
)
