"""Commits: now and then while running, and for certain at the end."""

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
    """Ten records of one partition, and the commits of them."""

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

    def resolve(self, *some: int) -> None:
        for offset in some:
            self.offsets.resolve(raw(offset).ref)

    @property
    def sent(self) -> list[int]:
        return [offsets[P] for offsets in self.source.commits]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- now and then ------------------------------------------------------------------------------


def test_nothing_is_committed_where_nothing_moved(bench: Bench) -> None:
    bench.resolve(1)
    bench.commits.commit_if_due()
    assert bench.sent == []


def test_a_commit_is_made_once_an_interval_and_one_at_a_time(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    bench.resolve(1)
    bench.commits.commit_if_due()
    bench.clock.sleep(10 * INTERVAL)
    bench.commits.commit_if_due()
    assert bench.sent == [1], "the first is not answered yet"
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


def test_what_a_commit_took_is_told(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    bench.clock.sleep(3)
    bench.source.answers.pop()(None)
    name, labels = "streamlabel_stage_seconds_sum", {"stage": "commit"}
    assert bench.metrics.registry.get_sample_value(name, labels) == 3


def test_a_commit_that_the_broker_did_not_take_is_made_again(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    bench.source.answers.pop()(BrokerAway("rebalancing"))
    assert (bench.offsets.committed(P), bench.failures) == (None, [])
    bench.clock.sleep(INTERVAL)
    bench.commits.commit_if_due()
    assert bench.sent == [1, 1]


def test_a_commit_that_is_refused_is_a_failure(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_if_due()
    error = AccessDenied("no")
    bench.source.answers.pop()(error)
    assert bench.failures == [error]
    assert bench.offsets.committed(P) is None


def test_what_the_sink_commits_is_only_noted() -> None:
    bench = Bench(commits_offsets=True)
    bench.resolve(0)
    bench.commits.commit_if_due()
    assert (bench.sent, bench.offsets.committed(P)) == ([], 1)
    bench.resolve(1)
    bench.commits.commit_by(bench.clock.now + 10)
    assert (bench.sent, bench.offsets.committed(P)) == ([], 2)


def test_somebody_who_waits_makes_the_sink_hurry(bench: Bench) -> None:
    bench.commits.request_commit()
    assert bench.sink.hurried == 1


# -- at the end --------------------------------------------------------------------------------


def refusing(bench: Bench, times: float, error: Exception) -> Callable[[str], None]:
    tries = 0

    def commit(what: str) -> None:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise error

    return commit


def test_the_last_commit_is_waited_for(bench: Bench) -> None:
    bench.resolve(0, 1)
    bench.commits.commit_by(bench.clock.now + 10)
    assert (bench.sent, bench.offsets.committed(P)) == ([2], 2)
    bench.commits.commit_by(bench.clock.now + 10)
    assert bench.sent == [2], "there is nothing left to commit"


def test_the_last_commit_is_tried_until_its_time_is_up(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 3, BrokerAway("rebalancing"))
    bench.commits.commit_by(bench.clock.now + 10, lambda: bench.clock.sleep(1))
    assert bench.offsets.committed(P) == 1
    assert bench.source.told == ["commit"] * 4


def test_what_comes_in_between_two_tries_is_committed_with_it(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1, BrokerAway("rebalancing"))
    bench.commits.commit_by(bench.clock.now + 10, lambda: bench.resolve(1))
    assert bench.sent == [2]


def test_the_last_commit_ends_in_time(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1e9, BrokerAway("for ever"))
    began = bench.clock.now
    bench.commits.commit_by(began + 10, lambda: bench.clock.sleep(1))
    assert (bench.clock.now - began, bench.offsets.committed(P)) == (10, None)


def test_a_commit_without_time_left_is_tried_once(bench: Bench) -> None:
    bench.resolve(0)
    bench.commits.commit_by(bench.clock.now - 1)
    assert bench.offsets.committed(P) == 1


def test_in_a_rebalance_it_is_tried_once(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1e9, BrokerAway("for ever"))
    bench.commits.commit_by(bench.clock.now + 10)
    assert bench.source.told == ["commit"]


def test_a_refusal_at_the_end_is_raised(bench: Bench) -> None:
    bench.resolve(0)
    bench.source.before = refusing(bench, 1, AccessDenied("no"))
    with pytest.raises(AccessDenied):
        bench.commits.commit_by(bench.clock.now + 10, lambda: None)


def test_an_answer_that_comes_after_the_log_was_cut_back_holds_no_later_commit_up(
    bench: Bench,
) -> None:
    """The old log's offsets say nothing of the new one's."""
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
