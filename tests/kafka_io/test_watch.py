"""TopicWatch: a topic that goes is noticed, one that blinks is not."""

from __future__ import annotations

import uuid

import pytest

from worker.errors import TopicMissing
from worker.kafka_io.watch import TopicWatch


class Metadata:
    """The client's metadata, as far as they are looked at."""

    def __init__(self, **ids: object) -> None:
        self.ids = ids

    def partitions_for_topic(self, name: str) -> set[int] | None:
        return {0} if name in self.ids else None

    def topic_id(self, name: str) -> object:
        return self.ids.get(name)


class Hands:
    """A clock that a test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_topic_that_stays_away_is_told_with_its_name_and_the_command() -> None:
    metadata, clock = Metadata(posts=uuid.uuid4()), Hands()
    watch = TopicWatch(metadata, ["posts"], clock)
    watch.check()
    assert not watch.gone()
    metadata.ids.clear()
    watch.check()
    assert watch.gone()
    clock.sleep(11)
    with pytest.raises(TopicMissing, match=r"'posts' was deleted .*streamlabel topics create"):
        watch.check()


def test_a_topic_that_blinks_is_waited_for_anew_each_time() -> None:
    """A broker that has just started may not know every topic."""
    ids: dict[str, object] = {"posts": uuid.uuid4()}
    metadata, clock = Metadata(**ids), Hands()
    watch = TopicWatch(metadata, ["posts"], clock)
    for there in (True, False, True, False, True):
        metadata.ids = ids if there else {}
        watch.check()
        clock.sleep(9)


def test_another_topic_of_the_same_name_is_told_at_once() -> None:
    metadata = Metadata(posts=uuid.uuid4())
    watch = TopicWatch(metadata, ["posts"], Hands())
    watch.check()
    metadata.ids["posts"] = uuid.uuid4()
    with pytest.raises(TopicMissing, match="made anew"):
        watch.check()


def test_what_was_never_seen_and_what_has_no_id_is_not_judged() -> None:
    """A producer learns of a topic with its first record; old brokers tell no ids."""
    metadata, clock = Metadata(old=None), Hands()
    watch = TopicWatch(metadata, ["old", "later"], clock)
    for _ in range(3):
        watch.check()
        clock.sleep(20)
    assert not watch.gone()
