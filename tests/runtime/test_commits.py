"""Commits: periodic while the worker runs, synchronous when it stops."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.clocks import HandClock
from tests.support.doubles import Sink, Source
from tests.support.records import raw
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition
from worker.errors import AccessDenied, BrokerAway, StreamlabelError
from worker.metrics import Metrics
from worker.runtime.commits import Commits

P = Partition("in", 0)
INTERVAL = 0.5


class Bench:
    """Ten records of one partition, and their commits."""

    def __init__(self, *, commits_offsets: bool = False) -> None:
        self.clock, self.offsets, self.metrics = HandClock(), OffsetTracker(), Metrics()
        self.source, self.sink = (
            Source(self.clock, lambda: None),
            Sink(commits_offsets=commits_offsets),
        )
        self.failures: list[StreamlabelError] = []
        self.commits = Commits(
            self.offsets,
            self.source,
            self.sink,
            INTERVAL,
            metrics=self.metrics,
            clock=self.clock,
            on_failure=self.failures.append,
        )
        self.offsets.assign(P, 1)
        for offset in range(10):
            self.offsets.track(raw(offset))

    def resolve(self, *offsets: int) -> None:
        for offset in offsets:
            self.offsets.resolve(raw(offset).ref)

    @property
    def sent(self) -> list[int]:
        return [offsets[P] for offsets in self.source.commits]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- while running -----------------------------------------------------------------------------


def test_an_offset_that_did_not_move_is_not_committed(bench: Bench) -> None:
    bench.resolve(1)
    bench.commits.commit_if_due()
    assert bench.sent == []


def test_commits_are_made_once_an_interval_and_one_at_a_time(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    bench.resolve(1)
    bench.commits.commit_if_due()
    bench.clock.sleep(10 * INTERVAL)
    bench.commits.commit_if_due()
    assert bench.sent == [1], "the first one is unanswered"
    bench.source.answers.pop()(None)
    assert bench.offsets.committed(P) == 1
    bench.commits.commit_if_due()
    assert bench.sent == [1, 2]
    bench.source.answers.pop()(None)
    bench.resolve(2)
    bench.commits.commit_if_due()
    assert bench.sent == [1, 2], "the interval is not over"
    bench.clock.sleep(INTERVAL)
    bench.commits.commit_if_due()
    assert bench.sent == [1, 2, 3]


def test_the_duration_of_a_commit_is_measured(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    bench.clock.sleep(3)
    bench.source.answers.pop()(None)
    name, labels = "streamlabel_stage_seconds_sum", {"stage": "commit"}
    assert bench.metrics.registry.get_sample_value(name, labels) == 3


def test_a_failed_commit_is_retried(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    bench.source.answers.pop()(BrokerAway("rebalancing"))
    assert (bench.offsets.committed(P), bench.failures) == (None, [])
    bench.clock.sleep(INTERVAL)
    bench.commits.commit_if_due()
    assert bench.sent == [1, 1]


def test_a_refused_commit_is_reported_as_a_failure(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    error = AccessDenied("no")
    bench.source.answers.pop()(error)
    assert bench.failures == [error]
    assert bench.offsets.committed(P) is None


def test_offsets_that_the_sink_commits_are_only_marked() -> None:
    bench = Bench(commits_offsets=True)
    bench.resolve(0)
    bench.commits.commit_if_due()
    assert (bench.sent, bench.offsets.committed(P)) == ([], 1)
    bench.resolve(1)
    bench.commits.commit_by(bench.clock.now + 10)
    assert (bench.sent, bench.offsets.committed(P)) == ([], 2)


def test_a_requested_commit_reaches_the_sink(bench: Bench) -> None:
    bench.commits.request_commit()
    assert bench.sink.commit_requests == 1


# -- at the end --------------------------------------------------------------------------------


def refusing(bench: Bench, times: float, error: Exception) -> Callable[[str], None]:
    tries = 0

    def commit(what: str) -> None:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise error

    return commit


def test_the_last_commit_is_awaited(bench: Bench) -> None:
    bench.resolve(0, 1)
    bench.commits.commit_by(bench.clock.now + 10)
    assert (bench.sent, bench.offsets.committed(P)) == ([2], 2)
    bench.commits.commit_by(bench.clock.now + 10)
    assert bench.sent == [2], "there is nothing left to commit"


def test_the_last_commit_is_retried_until_its_deadline(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 3, BrokerAway("rebalancing"))
    bench.commits.commit_by(bench.clock.now + 10, lambda: bench.clock.sleep(1))
    assert bench.offsets.committed(P) == 1
    assert bench.source.calls == ["commit"] * 4


def test_a_retried_commit_includes_newly_settled_records(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1, BrokerAway("rebalancing"))
    bench.commits.commit_by(bench.clock.now + 10, lambda: bench.resolve(1))
    assert bench.sent == [2]


def test_the_last_commit_keeps_its_deadline(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1e9, BrokerAway("for ever"))
    began = bench.clock.now
    bench.commits.commit_by(began + 10, lambda: bench.clock.sleep(1))
    assert (bench.clock.now - began, bench.offsets.committed(P)) == (10, None)


def test_a_commit_after_its_deadline_is_tried_once(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_by(bench.clock.now - 1)
    assert bench.offsets.committed(P) == 1


def test_a_commit_during_a_rebalance_is_tried_once(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1e9, BrokerAway("for ever"))
    bench.commits.commit_by(bench.clock.now + 10)
    assert bench.source.calls == ["commit"]


def test_a_refusal_of_the_last_commit_is_raised(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1, AccessDenied("no"))
    with pytest.raises(AccessDenied):
        bench.commits.commit_by(bench.clock.now + 10, lambda: None)


def test_an_answer_after_the_log_was_truncated_is_ignored(
    bench: Bench,
) -> None:
    """Offsets of the old log must not block commits of the new one."""
    bench.resolve(*range(10))
    bench.commits.commit_if_due()
    bench.offsets.assign(P, 2)
    bench.source.answers[0](None)
    for offset in range(5):
        bench.offsets.track(raw(offset, epoch=2))
        bench.offsets.resolve(raw(offset, epoch=2).ref)
    bench.clock.sleep(INTERVAL)
    bench.commits.commit_if_due()
    assert bench.sent == [10, 5]
