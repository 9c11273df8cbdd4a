"""TopicFinder keeps the subscription in step with the topics that exist."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.workers import Partitions
from worker.core.records import Partition
from worker.errors import BrokerAway, RegistryAway, RegistryDenied, TopicMissing
from worker.kafka_io import internals
from worker.kafka_io.listener import Listener
from worker.kafka_io.positions import Positions
from worker.kafka_io.topic_finder import TopicFinder
from worker.settings import load

TOPICS = load({"input.topic_pattern": "in-.*"}, environ={}).settings.topics


class FoundConsumer:
    """A consumer whose group gives it partition 0 of each topic that it subscribes to.

    Attributes:
        ids: the topics that exist, and their ids; `refresh` makes them known.
        joins: whether the group rebalances when the subscription changes.
        moves: partitions and their new positions.
    """

    def __init__(self) -> None:
        self.ids: dict[str, Any] = {}
        self.known: dict[str, Any] = {}
        self.joins = True
        self.moves: list[tuple[str, Any]] = []
        self.offsets: dict[str, int] = {}
        self.handler = Partitions()
        self._topics: set[str] = set()
        self._assigned: set[TopicPartition] = set()
        self._last_successful_refresh_ms = 0.0
        self._cluster = self
        self._subscription = SimpleNamespace(change_subscription=self._change)
        self.prepared: list[list[str]] = []
        self.before_prepare = lambda: None
        self.listener = Listener(self.handler, lambda: None, HandClock(), 0.0)
        positions = Positions(
            self,
            from_start=True,
            on_begun=lambda positions, _: positions,
            start_new_epoch=self.listener.start_new_epoch,
            on_skipped=lambda *_: None,
        )
        self.finder = TopicFinder(self, TOPICS, self.listener, positions, self._prepare)

    def _prepare(self, names: Collection[str]) -> None:
        self.before_prepare()
        self.prepared.append(list(names))

    def refresh(self) -> None:
        self.known = dict(self.ids)
        self._last_successful_refresh_ms += 1
        self.finder.check()

    # -- the library's side

    def topics(self) -> set[str]:
        return set(self.known)

    def topic_id(self, name: str) -> Any:
        return self.known.get(name)

    def subscription(self) -> set[str]:
        return set(self._topics)

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    def _change(self, topics: list[str]) -> None:
        self._topics = set(topics)
        if self.joins:
            self.join()

    def join(self) -> None:
        wanted = {TopicPartition(name, 0) for name in self._topics}
        new, old = wanted - self._assigned, self._assigned - wanted
        self._assigned = wanted
        for call in (
            self.listener.on_partitions_revoked(old),
            self.listener.on_partitions_assigned(new),
        ):
            with pytest.raises(StopIteration):  # neither waits
                call.send(None)

    def committed(self, tp: TopicPartition, timeout_ms: int) -> int | None:
        return self.offsets.get(tp.topic)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.moves.append((tp.topic, offset))

    def seek_to_beginning(self, tp: TopicPartition) -> None:
        self.moves.append((tp.topic, "start"))

    @property
    def owned(self) -> set[str]:
        """The topics with a current epoch."""
        return {partition.topic for partition in self.listener.epochs}


@pytest.fixture
def consumer() -> Iterator[FoundConsumer]:
    made = FoundConsumer()
    made.ids = {"in-a": uuid.uuid4(), "in-b": uuid.uuid4(), "other": uuid.uuid4()}
    made.refresh()
    with closing(made.listener):
        yield made


def test_topics_that_match_are_prepared_before_they_are_subscribed_to(
    consumer: FoundConsumer,
) -> None:
    assert consumer.prepared == [["in-a", "in-b"]]
    assert consumer.owned == set(consumer.finder.names) == {"in-a", "in-b"}
    seen: list[set[str]] = []
    consumer.before_prepare = lambda: seen.append(consumer.subscription())
    consumer.ids["in-c"] = uuid.uuid4()
    with capture_logs() as lines:
        consumer.refresh()
    assert seen == [{"in-a", "in-b"}]
    assert consumer.owned == {"in-a", "in-b", "in-c"}
    (line,) = lines
    assert (line["pattern"], line["topics"]) == ("in-.*", ["in-c"])


def test_nothing_is_done_before_the_next_response_of_a_broker(consumer: FoundConsumer) -> None:
    consumer.known = {}
    consumer.finder.check()
    assert consumer.owned == {"in-a", "in-b"}


@pytest.mark.parametrize("error", [BrokerAway, RegistryAway, RegistryDenied])
def test_a_topic_whose_outputs_can_not_be_prepared_now_is_found_again(
    consumer: FoundConsumer, error: type[Exception]
) -> None:
    """Meanwhile the others are read; a refusal stops the worker."""

    def away() -> None:
        raise error("not now")

    consumer.before_prepare = away
    consumer.ids["in-c"] = uuid.uuid4()
    del consumer.ids["in-a"]
    with capture_logs() as lines:
        consumer.refresh()
    assert consumer.owned == set(consumer.finder.names) == {"in-b"}
    assert lines[-1]["log_level"] == "warning"
    assert (lines[-1]["topics"], lines[-1]["reason"]) == (["in-c"], "not now")
    consumer.before_prepare = lambda: None
    consumer.finder.check()
    assert consumer.owned == {"in-b"}, "it is tried again with new metadata"
    consumer.refresh()
    assert consumer.owned == {"in-b", "in-c"}


def test_a_deleted_topic_is_fenced_and_leaves_the_subscription(consumer: FoundConsumer) -> None:
    """It is not revoked: its drain would end with a commit that the broker refuses."""
    del consumer.ids["in-a"]
    with capture_logs() as lines:
        consumer.refresh()
    assert consumer.handler.told == ["assigned", "deleted", "assigned"]
    assert consumer.handler.owned == {Partition("in-b", 0)}
    assert consumer.subscription() == {"in-b"}
    assert consumer.prepared[-1] == ["in-b"]
    assert [(line["event"], line["topic"]) for line in lines] == [
        ("an input topic was deleted", "in-a")
    ]
    assert not consumer.finder.missing()


def test_a_topic_recreated_between_two_responses_is_read_from_its_start(
    consumer: FoundConsumer,
) -> None:
    consumer.offsets = {"in-a": 7, "in-b": 7}
    before = consumer.listener.epochs
    consumer.ids["in-a"] = uuid.uuid4()
    consumer.refresh()
    assert consumer.moves == [("in-a", "start")]
    after = consumer.listener.epochs
    assert after[Partition("in-a", 0)] > before[Partition("in-a", 0)], "a new epoch"
    assert after[Partition("in-b", 0)] == before[Partition("in-b", 0)]
    consumer.refresh()
    assert len(consumer.moves) == 1, "once"


def test_a_topic_always_has_an_id(consumer: FoundConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may note a commit at any time; an offset without an id would count."""
    before = dict(consumer.ids)
    consumer.ids |= {"in-a": uuid.uuid4(), "in-b": uuid.uuid4()}
    seen: list[list[Any]] = []

    def look(*_: object) -> None:
        seen.append([consumer.finder.topic_id(name) for name in ("in-a", "in-b")])

    monkeypatch.setattr(consumer, "seek_to_beginning", look)
    consumer.before_prepare = look
    consumer.refresh()
    look()
    old, new = ([ids["in-a"], ids["in-b"]] for ids in (before, consumer.ids))
    assert seen == [old, old, new]


def test_a_recreated_topic_is_fenced_although_a_new_topic_stops_the_worker(
    consumer: FoundConsumer,
) -> None:
    """The shutdown would commit the old topic's offsets for the new one."""

    def missing() -> None:
        raise TopicMissing("out.in-c")

    consumer.before_prepare = missing
    consumer.ids |= {"in-a": uuid.uuid4(), "in-c": uuid.uuid4()}
    with pytest.raises(TopicMissing):
        consumer.refresh()
    assert consumer.handler.owned == {Partition("in-b", 0)}


@pytest.mark.parametrize(("committed", "position"), [(7, 7), (None, "start")])
def test_a_topic_that_is_back_continues_at_its_committed_offset(
    consumer: FoundConsumer, committed: int | None, position: object
) -> None:
    """The group has not rebalanced meanwhile, so the client would read on behind what was lost."""
    consumer.offsets = {} if committed is None else {"in-a": committed}
    consumer.joins, known = False, consumer.ids.pop("in-a")
    consumer.refresh()
    assert consumer.owned == {"in-b"}
    consumer.ids["in-a"] = known
    consumer.refresh()
    assert consumer.owned == {"in-a", "in-b"}
    assert consumer.moves == [("in-a", position)]


def test_another_topic_that_is_back_is_read_from_its_start(consumer: FoundConsumer) -> None:
    consumer.offsets = {"in-a": 7}
    consumer.joins = False
    del consumer.ids["in-a"]
    consumer.refresh()
    consumer.ids["in-a"] = uuid.uuid4()
    consumer.refresh()
    assert consumer.moves == [("in-a", "start")]


def test_a_topic_that_the_group_has_taken_away_is_only_subscribed_to(
    consumer: FoundConsumer,
) -> None:
    known = consumer.ids.pop("in-a")
    consumer.refresh()
    consumer.refresh()
    consumer.ids["in-a"] = known
    consumer.refresh()
    assert consumer.owned == {"in-a", "in-b"}
    assert consumer.moves == []


def test_brokers_without_ids_never_report_another_topic(consumer: FoundConsumer) -> None:
    consumer.ids["in-a"] = None
    consumer.refresh()
    consumer.ids["in-a"] = uuid.uuid4()
    consumer.refresh()
    assert consumer.moves == []


def test_all_topics_may_go_and_come(consumer: FoundConsumer) -> None:
    consumer.ids = {}
    consumer.refresh()
    assert (consumer.finder.names, consumer.subscription(), consumer.owned) == ((), set(), set())
    consumer.ids = {"in-z": uuid.uuid4()}
    consumer.refresh()
    assert consumer.owned == {"in-z"}


def test_the_client_subscribes_to_no_topic_at_first() -> None:
    """Its own pattern would be matched on another thread, before outputs are prepared."""
    calls: list[dict[str, Any]] = []
    consumer = SimpleNamespace(
        subscribe=lambda **options: calls.append(options),
        _subscription=SimpleNamespace(subscribed_pattern="(?!)"),
    )
    internals.subscribe_to_found(consumer, "listener")
    assert calls == [{"pattern": "(?!)", "listener": "listener"}]
    assert consumer._subscription.subscribed_pattern is None
