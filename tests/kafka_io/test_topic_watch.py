"""TopicWatch: a topic that goes is noticed, one that blinks is not."""

from __future__ import annotations

import uuid

import pytest

from tests.support.clocks import HandClock
from worker.errors import TopicMissing
from worker.kafka_io.topic_watch import TopicWatch


class Metadata:
    """The client's metadata, as far as they are looked at; a broker answers all the time."""

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


def test_a_topic_that_stays_away_is_told_with_its_name_and_the_command() -> None:
    clock = HandClock()
    metadata = Metadata(clock, posts=uuid.uuid4())
    watch = TopicWatch(metadata, ["posts"], clock)
    watch.check()
    assert not watch.missing()
    metadata.ids.clear()
    watch.check()
    assert watch.missing()
    clock.sleep(11)
    with pytest.raises(TopicMissing, match=r"'posts' was deleted .*streamlabel topics create"):
        watch.check()


def test_a_topic_that_blinks_is_waited_for_anew_each_time() -> None:
    """A broker that has just started may not know every topic."""
    ids: dict[str, object] = {"posts": uuid.uuid4()}
    clock = HandClock()
    metadata = Metadata(clock, **ids)
    watch = TopicWatch(metadata, ["posts"], clock)
    for there in (True, False, True, False, True):
        metadata.ids = ids if there else {}
        watch.check()
        clock.sleep(9)


def test_another_topic_of_the_same_name_is_told_at_once() -> None:
    metadata = Metadata(HandClock(), posts=uuid.uuid4())
    watch = TopicWatch(metadata, ["posts"], HandClock())
    watch.check()
    metadata.ids["posts"] = uuid.uuid4()
    with pytest.raises(TopicMissing, match="recreated"):
        watch.check()


def test_what_nobody_asks_for_and_what_has_no_id_is_not_judged() -> None:
    """A producer learns of a topic with its first record; old brokers tell no ids."""
    clock = HandClock()
    metadata = Metadata(clock, old=None)
    watch = TopicWatch(metadata, ["old", "later"], clock)
    for _ in range(3):
        watch.check()
        clock.sleep(20)
    assert not watch.missing()


def test_while_no_broker_answers_nobody_knows() -> None:
    clock = HandClock()
    metadata = Metadata(clock, posts=uuid.uuid4())
    watch = TopicWatch(metadata, ["posts"], clock)
    metadata.ids.clear()
    metadata.silent_since = clock.now
    for _ in range(3):
        watch.check()
        clock.sleep(20)
    metadata.silent_since = None
    with pytest.raises(TopicMissing):
        watch.check()


def test_a_topic_that_a_new_client_never_saw_is_judged_once_it_is_asked_for() -> None:
    clock = HandClock()
    metadata = Metadata(clock, posts=uuid.uuid4())
    metadata.ids.clear()
    watch = TopicWatch(metadata, ["posts"], clock)
    watch.check()
    clock.sleep(11)
    with pytest.raises(TopicMissing):
        watch.check()
