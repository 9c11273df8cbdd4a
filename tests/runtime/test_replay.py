"""Copies of dead letters: what is sent, when the pipeline ends, and what is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from schemas.dead_letter import DeadLetterReason
from tests.support.records import raw
from worker.clock import SystemClock
from worker.core.records import Encoded, MicroBatch, RecordRef, WorkItem
from worker.core.topics import TopicInfo
from worker.errors import BrokerAway
from worker.metrics import Metrics
from worker.runtime.progress import Progress
from worker.runtime.replay import CopyPipeline, CopyTopics, ReplayTally
from worker.runtime.stage import StageControl

ORIGIN = RecordRef("posts", 2, 7, 1)


class ListSink:
    """Keeps what it is given; fails at first, if so told."""

    commits_offsets = False

    def __init__(self) -> None:
        self.sent: list[Encoded] = []
        self.failures: list[Exception] = []
        self.advanced = threading.Event()
        self.closed = 0.0

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        self.sent += outcomes
        self.advance()

    def advance(self) -> None:
        if not self.sent:
            return  # the stage is idle
        if self.failures:
            raise self.failures.pop()
        self.advanced.set()

    def close(self, timeout: float) -> None:
        self.closed = timeout
        if self.failures:
            raise self.failures.pop()


class Stand:
    """A pipeline of copies, with what surrounds it."""

    def __init__(self, to: str | None = None) -> None:
        clock = SystemClock()
        self.sink, self.crashes = ListSink(), list[tuple[str, BaseException]]()
        control = StageControl(on_crash=lambda *one: self.crashes.append(one), clock=clock)
        progress = Progress(60.0, Metrics(), clock)
        self.pipeline = CopyPipeline(to, self.sink, control, progress)  # type: ignore[arg-type]
        self.pipeline.start()

    def offer(self, *offsets: int) -> None:
        records = [replace(raw(offset, key=b"k"), origin=ORIGIN) for offset in offsets]
        entries = tuple(WorkItem(record, "") for record in records)
        assert self.pipeline.offer(MicroBatch(entries, "ready", 0.0, 0.0))

    def wait(self) -> None:
        assert self.sink.advanced.wait(30)


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand()
    yield made
    made.pipeline.close(5.0)


def test_a_copy_goes_where_its_record_came_from(stand: Stand) -> None:
    """With the same bytes; the sink sends it to the partition of its origin."""
    stand.offer(1, 2)
    stand.wait()
    first, second = stand.sink.sent
    record = raw(1, key=b"k")
    assert (first.ref.offset, second.ref.offset) == (1, 2)
    assert (first.topic, first.source) == ("posts", ORIGIN)
    assert (first.key, first.value, first.timestamp_ms) == (b"k", record.value, record.timestamp_ms)
    assert first.reason is None


def test_a_copy_goes_where_it_is_told_to() -> None:
    stand = Stand("elsewhere")
    stand.offer(1)
    stand.wait()
    stand.pipeline.close(5.0)
    assert [one.topic for one in stand.sink.sent] == ["elsewhere"]
    assert 0 < stand.sink.closed <= 5.0


def test_a_batch_that_a_broker_interrupts_is_continued(stand: Stand) -> None:
    """And is not sent twice."""
    stand.sink.failures = [BrokerAway("away")]
    stand.offer(1)
    stand.wait()
    assert len(stand.sink.sent) == 1
    assert stand.crashes == []


def test_any_batch_is_wanted_at_once(stand: Stand) -> None:
    assert stand.pipeline.has_room
    assert stand.pipeline.demand(0).at < 0


def test_a_sink_that_does_not_close_is_only_logged() -> None:
    stand = Stand()
    stand.sink.failures = [BrokerAway("away"), BrokerAway("away")]
    stand.pipeline.close(5.0)
    assert stand.sink.closed


def encoded(reason: DeadLetterReason | None = None) -> Encoded:
    return Encoded(ORIGIN, "out", None, b"", [], 0, reason)


def test_the_tally_counts_what_was_acknowledged() -> None:
    calls: list[int] = []
    tally = ReplayTally(lambda: calls.append(1))
    tally.note([encoded(), encoded(DeadLetterReason.NOT_JSON), encoded()])
    assert (tally.done, tally.dead, calls) == (2, {"not_json": 1}, [1])


def info(partitions: int, most: int | None) -> TopicInfo:
    return TopicInfo(
        partitions=partitions,
        replication_factor=1,
        max_message_bytes=most,
        cleanup_policy="delete",
        retention_ms=-1,
        timestamp_type="CreateTime",
        timestamp_before_ms=None,
        timestamp_after_ms=None,
        min_insync_replicas=1,
    )


def test_the_largest_batch_is_that_of_a_topic_or_of_a_request() -> None:
    infos = {"a": info(2, 5_000), "b": info(3, 9_000)}
    topics = CopyTopics(infos, None)
    assert (topics.partitions, topics.largest_batch) == ({"a": 2, "b": 3}, 9_000)
    assert CopyTopics(infos, 7_000).largest_batch == 7_000
    assert CopyTopics({}, None).largest_batch > 9_000
