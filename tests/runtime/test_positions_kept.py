"""Commits: positions behind gaps, and the start of a group, in both delivery modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from tests.support.clocks import HandClock
from tests.support.records import raw
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition, RecordRef
from worker.errors import BrokerAway, StreamlabelError
from worker.metrics import Metrics
from worker.runtime.commits import Commits

P = Partition("in", 0)


class AnsweringSource:
    def __init__(self) -> None:
        self.at: dict[Partition, int] = {}
        self.commits: list[dict[Partition, int]] = []
        self.fault: StreamlabelError | None = None

    def positions(self) -> dict[Partition, int]:
        return self.at

    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        if self.fault:
            raise self.fault
        self.commits.append(dict(offsets))

    def commit_async(self, offsets: Mapping[Partition, int], done: Callable[..., None]) -> None:
        self.commits.append(dict(offsets))
        done(self.fault)


class KeepingSink:
    def __init__(self, *, commits_offsets: bool) -> None:
        self.commits_offsets = commits_offsets
        self.kept: list[tuple[RecordRef, ...]] = []
        self.commit_requests = 0

    def keep(self, positions: Sequence[RecordRef]) -> None:
        self.kept.append(tuple(positions))

    def request_commit(self) -> None:
        self.commit_requests += 1


class Scene:
    def __init__(self, *, sink_commits: bool) -> None:
        self.source, self.sink = AnsweringSource(), KeepingSink(commits_offsets=sink_commits)
        self.offsets, self.clock = OffsetTracker(), HandClock()
        self.offsets.assign(P, 1)
        failed: list[Any] = []
        self.commits = Commits(
            self.offsets,
            self.source,  # type: ignore[arg-type]
            self.sink,  # type: ignore[arg-type]
            0.5,
            metrics=Metrics(),
            clock=self.clock,
            on_failure=failed.append,
        )

    def label(self, offset: int) -> None:
        self.offsets.track(raw(offset))
        self.offsets.resolve(raw(offset).ref)


def test_at_least_once_commits_the_position_behind_a_gap_once() -> None:
    scene = Scene(sink_commits=False)
    scene.label(0)
    scene.source.at = {P: 2}
    for _ in range(5):
        scene.commits.commit_if_due()
        scene.clock.sleep(1)
    assert scene.source.commits == [{P: 2}]


def test_exactly_once_gives_a_gap_to_the_sink_at_most_once_a_second() -> None:
    """The transactions committed their records; the gap needs a transaction of its own."""
    scene = Scene(sink_commits=True)
    scene.label(0)
    scene.source.at = {P: 2}
    for _ in range(20):
        scene.commits.commit_if_due()
        scene.clock.sleep(0.1)
    ref = RecordRef("in", 0, 2, 1)
    assert (scene.sink.kept, scene.source.commits) == ([(ref,), (ref,)], [])
    assert scene.offsets.committed(P) == 1
    scene.offsets.mark_kept([ref])
    scene.clock.sleep(1)
    scene.commits.commit_if_due()
    assert len(scene.sink.kept) == 2


def test_exactly_once_gives_no_position_to_the_sink_without_a_gap() -> None:
    scene = Scene(sink_commits=True)
    for offset in range(3):
        scene.label(offset)
        scene.source.at = {P: offset + 1}
        scene.commits.commit_if_due()
        scene.clock.sleep(1)
    assert (scene.sink.kept, scene.offsets.committed(P)) == ([], 3)


def test_a_stop_in_exactly_once_does_not_wait_for_a_gap() -> None:
    scene = Scene(sink_commits=True)
    scene.label(0)
    scene.offsets.reach({P: 2})
    scene.commits.commit_by(scene.clock.monotonic())
    assert (scene.offsets.acknowledged(), scene.offsets.committed(P)) == ({}, 1)


def test_at_least_once_commits_the_start_of_the_group_synchronously() -> None:
    scene = Scene(sink_commits=False)
    scene.offsets.begin({P: 7})
    scene.source.fault = BrokerAway("a rebalance")
    with pytest.raises(BrokerAway):
        scene.commits.commit_start([P])
    scene.source.fault = None
    assert scene.commits.commit_start([P]) == {P: 7}
    assert scene.source.commits == [{P: 7}]


def test_exactly_once_starts_once_the_sink_has_committed_the_start() -> None:
    scene = Scene(sink_commits=True)
    scene.offsets.begin({P: 7})
    assert scene.commits.commit_start([P]) == {}
    scene.offsets.begin({P: 9})
    assert scene.commits.commit_start([P]) == {}
    ref = RecordRef("in", 0, 7, 1)
    assert (scene.sink.kept, scene.sink.commit_requests) == ([(ref,), (ref,)], 2)
    scene.offsets.mark_kept([ref])
    assert scene.commits.commit_start([P]) == {P: 7}
    assert scene.source.commits == []
