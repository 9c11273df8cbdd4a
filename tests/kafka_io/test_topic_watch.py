"""TopicWatch reports a deleted topic, but not one that is missing for a moment."""

from __future__ import annotations

import uuid

import pytest

from tests.support.clocks import HandClock
from worker.errors import TopicMissing
from worker.kafka_io.topic_watch import SeenTopics, TopicWatch


class FakeMetadata:
    """The client's metadata, with the parts that are read; a broker answers all the time."""

    def __init__(self, clock: HandClock, **ids: object) -> None:
        self._clock, self.ids = clock, ids
        self._topics = set(ids)
        self.silent_since: float | None = None

    @property
    def _last_successful_refresh_ms(self) -> float:
        return 1000 * (self._clock.now if self.silent_since is None else self.silent_since)

    def partitions_for_topic(self, name: str) -> set[int] | None:
        return {0} if name in self.ids else None

    def topic_id(self, name: str) -> object:
        return self.ids.get(name)


def test_a_deleted_topic_is_reported_with_its_name_and_a_command() -> None:
    clock = HandClock()
    metadata = FakeMetadata(clock, posts=uuid.uuid4())
    watch = TopicWatch(metadata, ["posts"], clock)
    watch.check()
    assert not watch.missing()
    metadata.ids.clear()
    watch.check()
    assert watch.missing()
    clock.sleep(11)
    with pytest.raises(TopicMissing, match=r"'posts' was deleted .*streamlabel topics create"):
        watch.check()


def test_a_topic_missing_for_a_moment_is_waited_for() -> None:
    """A broker that has just started may not know every topic."""
    ids: dict[str, object] = {"posts": uuid.uuid4()}
    clock = HandClock()
    metadata = FakeMetadata(clock, **ids)
    watch = TopicWatch(metadata, ["posts"], clock)
    for exists in (True, False, True, False, True):
        metadata.ids = ids if exists else {}
        watch.check()
        clock.sleep(9)


def test_a_recreated_topic_is_reported_at_once() -> None:
    metadata = FakeMetadata(HandClock(), posts=uuid.uuid4())
    watch = TopicWatch(metadata, ["posts"], HandClock())
    watch.check()
    metadata.ids["posts"] = uuid.uuid4()
    with pytest.raises(TopicMissing, match="recreated"):
        watch.check()


def test_a_topic_that_is_no_longer_watched_may_come_back_as_another_one() -> None:
    """With a pattern, an input and its output may be deleted and made again."""
    clock = HandClock()
    metadata, topics = FakeMetadata(clock, out=uuid.uuid4()), ["out"]
    watch = TopicWatch(metadata, topics, clock)
    watch.check()
    topics.clear()
    watch.check()
    metadata.ids["out"] = uuid.uuid4()
    topics.append("out")
    watch.check()
    assert watch.names == ("out",)


def test_a_watch_may_have_more_patience() -> None:
    clock = HandClock()
    metadata = FakeMetadata(clock, out=uuid.uuid4())
    watch = TopicWatch(metadata, ["out"], clock, patience=40)
    watch.check()
    metadata.ids.clear()
    watch.check()
    clock.sleep(39)
    watch.check()
    clock.sleep(2)
    with pytest.raises(TopicMissing, match="'out' was deleted"):
        watch.check()


def test_topics_that_are_not_requested_or_lack_an_id_are_not_checked() -> None:
    """A producer asks for a topic with its first record; old brokers have no ids."""
    clock = HandClock()
    metadata = FakeMetadata(clock, old=None)
    watch = TopicWatch(metadata, ["old", "later"], clock)
    for _ in range(3):
        watch.check()
        clock.sleep(20)
    assert not watch.missing()


def test_a_missing_topic_is_not_reported_while_no_broker_answers() -> None:
    clock = HandClock()
    metadata = FakeMetadata(clock, posts=uuid.uuid4())
    watch = TopicWatch(metadata, ["posts"], clock)
    metadata.ids.clear()
    metadata.silent_since = clock.now
    for _ in range(3):
        watch.check()
        clock.sleep(20)
    metadata.silent_since = None
    with pytest.raises(TopicMissing):
        watch.check()


def test_a_topic_deleted_before_the_first_check_is_reported() -> None:
    clock = HandClock()
    metadata = FakeMetadata(clock, posts=uuid.uuid4())
    metadata.ids.clear()
    watch = TopicWatch(metadata, ["posts"], clock)
    watch.check()
    clock.sleep(11)
    with pytest.raises(TopicMissing):
        watch.check()


def test_a_client_that_takes_over_knows_what_its_predecessor_saw() -> None:
    """Each transaction that fails has another producer; a topic recreated then went unnoticed."""
    clock, seen = HandClock(), SeenTopics()
    metadata = FakeMetadata(clock, posts=uuid.uuid4())
    TopicWatch(metadata, ["posts"], clock, seen=seen).check()
    metadata.ids["posts"] = uuid.uuid4()
    with pytest.raises(TopicMissing, match="recreated"):
        TopicWatch(metadata, ["posts"], clock, seen=seen).check()


def test_successors_count_the_absence_of_a_topic_together() -> None:
    clock, seen = HandClock(), SeenTopics()
    metadata = FakeMetadata(clock, posts=uuid.uuid4())
    TopicWatch(metadata, ["posts"], clock, seen=seen).check()
    metadata.ids.clear()
    TopicWatch(metadata, ["posts"], clock, seen=seen).check()
    clock.sleep(11)
    successor = TopicWatch(metadata, ["posts"], clock, seen=seen)
    successor.check()  # the broker has not answered about topics yet
    clock.sleep(1)
    with pytest.raises(TopicMissing, match="deleted"):
        successor.check()


@pytest.mark.parametrize(("first", "then"), [(None, uuid.uuid4()), (uuid.uuid4(), None)])
def test_a_broker_without_ids_does_not_make_a_topic_another(first: object, then: object) -> None:
    """A client that takes over may meet a broker of another version."""
    clock, seen = HandClock(), SeenTopics()
    metadata = FakeMetadata(clock, posts=first)
    TopicWatch(metadata, ["posts"], clock, seen=seen).check()
    metadata.ids["posts"] = then
    TopicWatch(metadata, ["posts"], clock, seen=seen).check()
    metadata.ids["posts"] = uuid.uuid4()
    with pytest.raises(TopicMissing, match="recreated"):
        TopicWatch(metadata, ["posts"], clock, seen=seen).check()
