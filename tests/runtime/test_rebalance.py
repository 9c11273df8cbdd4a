"""Rebalance: partitions are drained, committed and released, even if a step fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.doubles import Sink, Source, outcome
from tests.support.records import item
from worker.core.batcher import MicroBatcher
from worker.core.offsets import OffsetTracker
from worker.core.records import Completion, Partition
from worker.errors import AccessDenied, BrokerAway, StageCrashed, StreamlabelError
from worker.metrics import Metrics
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions
from worker.runtime.progress import Progress
from worker.runtime.rebalance import Rebalance, RebalanceListener

P0, P1 = Partition("in", 0), Partition("in", 1)
DRAIN = 20.0


class AnsweredLate(Completions):
    """Lets the clock run and the broker answer before it absorbs."""

    answer: Callable[[], None] = staticmethod(lambda: None)

    def absorb(self, wait: float = 0.0) -> None:
        self._clock.sleep(wait)
        self.answer()
        super().absorb()


class Bench:
    """Two partitions of two records; the second record of each is still in the batcher."""

    def __init__(self) -> None:
        self.clock, self.offsets, self.metrics = HandClock(), OffsetTracker(), Metrics()
        self.source, self.sink = Source(self.clock, lambda: None), Sink()
        self.batcher = MicroBatcher(10, 1000)
        progress = Progress(10.0, self.metrics, self.clock)
        self.completions = AnsweredLate(self.offsets, self.metrics, progress, self.clock)
        commits = Commits(
            self.offsets,
            self.source,
            self.sink,
            0.5,
            metrics=self.metrics,
            clock=self.clock,
            on_failure=self.completions.failed,
        )
        self.rebalance = Rebalance(
            self.offsets,
            self.batcher,
            self.completions,
            commits,
            drain_timeout=DRAIN,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.rebalance.on_assigned({P0: 1, P1: 1})
        for offset in (0, 1):
            for partition in (0, 1):
                entry = item(offset, partition=partition)
                self.offsets.track(entry.record)
                if offset:
                    self.batcher.add(entry, 5, self.clock.now)

    def acknowledge(self, *partitions: int) -> None:
        """Acknowledge the first record of each partition."""
        done = tuple(outcome(0, partition=partition) for partition in partitions)
        self.completions.completed(Completion(done, self.clock.now))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"streamlabel_{name}", labels)

    def fault(self) -> StreamlabelError | None:
        """Return the fault that the main loop will stop on."""
        try:
            Completions.absorb(self.completions)
        except StreamlabelError as error:
            return error
        return None


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_records_handed_on_are_drained_and_committed_and_the_rest_is_dropped(bench: Bench) -> None:
    bench.completions.answer = lambda: bench.acknowledge(0)
    bench.rebalance.on_revoked([P0])
    assert bench.source.commits == [{P0: 1}]
    assert bench.offsets.partitions == (P1,)
    assert (bench.offsets.records, len(bench.batcher)) == (2, 1)
    assert bench.sink.commit_requests
    assert bench.value("rebalances_total", kind="revoked") == 1
    assert bench.value("rebalance_drain_seconds_count") == 1


def test_other_partitions_are_worked_on_meanwhile(bench: Bench) -> None:
    bench.completions.answer = lambda: bench.acknowledge(1, 0)
    bench.rebalance.on_revoked([P0])
    assert bench.source.commits == [{P0: 1, P1: 1}]
    assert bench.fault() is None


def test_a_drain_leaves_time_for_the_commit(bench: Bench) -> None:
    began = bench.clock.now
    with capture_logs() as lines:
        bench.rebalance.on_revoked([P0])
    assert DRAIN * 0.7 < bench.clock.now - began < DRAIN
    assert [line["records"] for line in lines if "undrained" in line["event"]] == [1]
    assert bench.offsets.partitions == (P1,)


def test_a_worker_that_stops_drains_only_until_its_own_deadline(bench: Bench) -> None:
    bench.rebalance.latest_deadline = bench.clock.now
    began = bench.clock.now
    bench.rebalance.on_revoked([P0])
    assert bench.clock.now == began
    assert bench.offsets.partitions == (P1,)


def test_a_partition_is_released_although_its_commit_fails(bench: Bench) -> None:
    def away(_: str) -> None:
        raise BrokerAway("the coordinator")

    bench.source.before = away
    bench.completions.answer = lambda: bench.acknowledge(0)
    bench.rebalance.on_revoked([P0])
    assert bench.source.calls == ["commit"]
    assert bench.offsets.partitions == (P1,)
    assert bench.fault() is None


@pytest.mark.allow_errors
@pytest.mark.parametrize(
    ("error", "kind"), [(AccessDenied("no"), AccessDenied), (LookupError("odd"), StageCrashed)]
)
@pytest.mark.parametrize("where", ["drain", "commit"])
def test_a_partition_is_released_although_a_step_fails_and_the_worker_stops(
    bench: Bench, where: str, error: Exception, kind: type[StreamlabelError]
) -> None:
    """Another worker owns it then, so later acknowledgements must not be committed here."""

    def broken(*_: object) -> None:
        raise error

    if where == "commit":
        bench.acknowledge(0)
        bench.source.before = broken
    else:
        bench.acknowledge(1)
        bench.completions.answer = broken
    bench.rebalance.on_revoked([P0])
    assert bench.offsets.partitions == (P1,)
    assert isinstance(bench.fault(), kind)
    bench.acknowledge(0)
    bench.fault()
    assert P0 not in bench.offsets.committable()


@pytest.mark.allow_errors
def test_records_settled_before_a_drain_failed_are_committed(bench: Bench) -> None:
    def die() -> None:
        bench.completions.crashed("infer", SystemExit(1))
        bench.acknowledge(1)

    bench.completions.answer = die
    bench.rebalance.on_revoked([P0])
    assert bench.source.commits == [{P1: 1}]
    assert isinstance(bench.fault(), StageCrashed)


def test_lost_partitions_are_neither_drained_nor_committed(bench: Bench) -> None:
    bench.acknowledge(0)
    bench.rebalance.on_lost([P0])
    assert bench.source.calls == []
    assert (bench.offsets.partitions, len(bench.batcher)) == ((P1,), 1)
    assert bench.value("rebalances_total", kind="lost") == 1
    bench.completions.absorb()
    assert bench.offsets.committable() == {}


def test_partitions_of_a_deleted_topic_are_dropped_without_a_warning(bench: Bench) -> None:
    """A commit of their offsets would fail, or skip records of a new topic of that name."""
    listener = RebalanceListener()
    listener.connect(bench.rebalance)
    bench.acknowledge(0)
    with capture_logs() as lines:
        listener.on_deleted([P0])
    assert bench.source.calls == []
    assert (bench.offsets.partitions, len(bench.batcher)) == ((P1,), 1)
    assert bench.value("rebalances_total", kind="deleted") == 1
    assert [line["log_level"] for line in lines] == ["info"]
    bench.completions.absorb()
    assert bench.offsets.committable() == {}


def test_the_metrics_of_a_released_partition_are_removed(bench: Bench) -> None:
    bench.metrics.offset_lag.labels("in", "0").set(7)
    bench.rebalance.on_lost([P0])
    assert bench.value("offset_lag", topic="in", partition="0") is None


def test_a_partition_that_returns_starts_a_new_epoch(bench: Bench) -> None:
    bench.rebalance.on_lost([P0])
    bench.rebalance.on_assigned({P0: 2})
    bench.acknowledge(0)
    bench.completions.absorb()
    assert bench.offsets.committable() == {}
    assert bench.value("rebalances_total", kind="assigned") == 2


def test_offsets_that_retention_removed_are_counted_and_logged(bench: Bench) -> None:
    with capture_logs() as lines:
        bench.rebalance.on_skipped(P0, range(3, 10))
    assert bench.value("offsets_skipped_total") == 7
    (line,) = lines
    assert (line["partition"], line["first"], line["last"]) == ("in[0]", 3, 9)


# -- the listener ------------------------------------------------------------------------------


def test_the_listener_forwards_to_the_handler_that_is_connected(bench: Bench) -> None:
    listener = RebalanceListener()
    listener.connect(bench.rebalance)
    listener.on_revoked([P0])
    assert bench.offsets.partitions == (P1,)
    listener.on_lost([P1])
    assert bench.offsets.partitions == ()
    listener.on_assigned({P0: 2})
    assert bench.offsets.partitions == (P0,)
    assert listener.on_begun({P0: 7}, "earliest") == {P0: 7}
    listener.on_skipped(P0, range(3, 10))
    assert bench.value("offsets_skipped_total") == 7


def test_a_listener_without_a_handler_refuses_partitions() -> None:
    """They would be polled and not tracked."""
    with pytest.raises(RuntimeError, match="before its rebalance handler was connected"):
        RebalanceListener().on_assigned({P0: 1})
