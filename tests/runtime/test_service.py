"""Worker: the main loop, with a source, a pipeline and a broker that the test scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.doubles import Pipe, Sink, Source
from tests.support.records import raw
from worker.core.records import Completion, Encoded, Partition, RawRecord
from worker.core.state import State
from worker.errors import AccessDenied, BrokerAway, Fatal, StageCrashed, StreamlabelError
from worker.metrics import Metrics
from worker.runtime.assembly import build_in_flight, build_worker
from worker.runtime.context import RecordPath, WorkerContext
from worker.runtime.formats import plain_formats
from worker.runtime.progress import Progress
from worker.runtime.rebalance import RebalanceListener
from worker.settings import load

P0, P1 = Partition("in", 0), Partition("in", 1)
BOUND = 8
STALL = 120.0


class Bench:
    """A worker with two partitions, and fakes for its neighbours."""

    def __init__(self, *, commits_offsets: bool = False, **more: Any) -> None:
        self.clock, self.metrics, self.stop = HandClock(), Metrics(), threading.Event()
        small = {"max_inflight_records": BOUND, "batch.max_records": 4, "stall_timeout": STALL}
        settings = load(small | more, environ={}).settings
        self.progress = Progress(settings.stall_timeout, self.metrics, self.clock)
        self.progress.move(State.WARMING)
        self.source, self.pipe = Source(self.clock, self.stop.set), Pipe()
        self.sink = Sink(commits_offsets=commits_offsets)
        context = WorkerContext(self.metrics, self.progress, self.clock, self.stop)
        work, self.listener = build_in_flight(settings, context), RebalanceListener()
        self.completions = work.completions
        path = RecordPath(self.source, self.pipe, self.sink)  # type: ignore[arg-type]
        self.worker = build_worker(
            settings,
            context,
            work,
            path,
            self.listener,
            formats=plain_formats(settings),
            other_members="unknown",
        )
        self.listener.on_assigned({P0: 1, P1: 1})

    def then(self, *steps: Callable[[], Iterable[RawRecord]]) -> None:
        """Script the next polls; the worker stops after the last one."""
        self.source.script.extend(steps)

    def acknowledge(self, partition: int, *offsets: int) -> None:
        done = [_outcome(raw(offset, partition=partition)) for offset in offsets]
        self.completions.completed(Completion(tuple(done), self.clock.now))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"streamlabel_{name}", labels)


def _outcome(record: RawRecord) -> Encoded:
    return Encoded(record.ref, "out", None, b"{}", [], 0, label="POSITIVE", score=0.75)


def polled(partition: int, *offsets: int) -> Callable[[], list[RawRecord]]:
    return lambda: [raw(offset, partition=partition) for offset in offsets]


def doing(step: Callable[[], object]) -> Callable[[], list[RawRecord]]:
    """Return a poll without records that runs a step."""

    def poll() -> list[RawRecord]:
        step()
        return []

    return poll


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_records_are_handed_on_in_poll_order_and_committed_once_acknowledged(bench: Bench) -> None:
    bench.then(
        polled(0, 0, 1, 2),
        polled(1, 7),
        doing(lambda: bench.acknowledge(0, 0, 1, 2)),
        doing(lambda: bench.acknowledge(1, 7)),
    )
    bench.worker.run()
    handed = [entry.record.ref for batch in bench.pipe.batches for entry in batch.entries]
    assert handed == [record.ref for record in (raw(0), raw(1), raw(2), raw(7, partition=1))]
    assert bench.source.commits == [{P0: 3}, {P0: 3, P1: 8}]
    assert bench.source.calls[-1] == "close"
    assert bench.pipe.calls == ["start", "close"]
    assert bench.progress.state is State.STOPPED


def test_what_arrives_is_counted_from_the_first_known_end_on(bench: Bench) -> None:
    """Not what was there before, nor by how much an end seems to fall."""

    def ends_at(end: int) -> Callable[[], list[RawRecord]]:
        def poll() -> list[RawRecord]:
            bench.source.end = end
            bench.clock.sleep(1)
            return []

        return poll

    bench.source.end = 1000
    bench.then(*map(ends_at, (1000, 1007, 1004, 1005)), polled(0))
    bench.worker.run()
    assert bench.value("offsets_arrived_total") == 2 * (7 + 1), "of two partitions"


def test_throughput_is_logged_each_minute_and_totals_at_the_stop(bench: Bench) -> None:
    bench.source.end, bench.source.at = 7, {P0: 5, P1: 7}
    bench.then(
        polled(0, 0, 1, 4),
        doing(lambda: bench.acknowledge(0, 0, 1)),
        doing(lambda: bench.acknowledge(0, 4)),
        doing(lambda: bench.clock.sleep(90)),
    )
    with capture_logs() as lines:
        bench.worker.run()
    stopped = lines[-1]
    assert stopped["event"] == "stopped"
    assert (stopped["labelled"], stopped["dead_letters"]) == (3, 0)
    assert stopped["offsets_committed"] == 5, "gaps included"
    assert stopped["uptime_seconds"] >= 90
    (line,) = [line for line in lines if line["event"].startswith("labelled")]
    assert (line["labelled"], line["lag"]) == (3, 2)


def test_a_worker_does_not_commit_if_its_sink_does() -> None:
    bench = Bench(commits_offsets=True)
    bench.then(polled(0, 0), doing(lambda: bench.acknowledge(0, 0)))
    bench.worker.run()
    assert bench.source.commits == []
    assert bench.progress.state is State.STOPPED


def test_a_batch_waits_until_the_first_stage_has_room(bench: Bench) -> None:
    def make_room() -> None:
        assert bench.pipe.batches == []
        bench.pipe.has_room = True

    bench.pipe.has_room = False
    bench.then(
        polled(0, *range(6)), doing(make_room), doing(lambda: bench.acknowledge(0, *range(6)))
    )
    bench.worker.run()
    assert [len(batch) for batch in bench.pipe.batches] == [4, 2]


def test_a_failed_poll_is_retried(bench: Bench) -> None:
    def away() -> None:
        raise BrokerAway("just now")

    bench.then(doing(away), polled(0, 0), doing(lambda: bench.acknowledge(0, 0)))
    bench.worker.run()
    assert bench.source.commits[-1] == {P0: 1}


# -- backpressure ------------------------------------------------------------------------------


def behind_the_first(bench: Bench, ended: Callable[[], object]) -> None:
    """Poll records of partition 0, and acknowledge all but the first."""
    n = 0

    def poll() -> list[RawRecord]:
        nonlocal n
        bench.acknowledge(0, *range(1, n))
        if bench.progress.state is State.PAUSED or n > 10 * BOUND:
            ended()
            return []
        bench.source.script.append(poll)
        n += 1
        return [raw(n - 1)]

    bench.then(poll)


def test_polling_pauses_at_the_bound_of_held_records(bench: Bench) -> None:
    """Once 12,800 records piled up behind an unacknowledged one, with 32 "in flight"."""
    held: list[tuple[Any, ...]] = []

    def note() -> None:
        names = ("inflight_records", "held_records", "held_bytes", "paused")
        held.append(tuple(bench.value(name) for name in names))

    behind_the_first(bench, note)
    with pytest.raises(Fatal, match="1 record in flight not published"):
        bench.worker.run()
    # In flight: the first, and the newest, whose acknowledgement is coming in.
    assert held == [(2, BOUND, BOUND * raw().size, 1)]
    assert min(bench.source.asked) == 1
    assert bench.sink.commit_requests


def test_polling_resumes_when_the_oldest_record_is_acknowledged(bench: Bench) -> None:
    states: list[State] = []

    def note() -> None:
        states.append(bench.progress.state)

    def go_on() -> None:
        note()
        bench.acknowledge(0, 0)
        bench.then(doing(note))

    behind_the_first(bench, go_on)
    bench.worker.run()
    assert states == [State.PAUSED, State.RUNNING]
    assert bench.source.calls.count("resume") == 1
    assert "pause" in bench.source.calls[: bench.source.calls.index("resume")]
    assert bench.source.commits[-1] == {P0: BOUND}
    assert bench.value("held_records") == 0


def test_polling_resumes_at_half_of_the_bound(bench: Bench) -> None:
    """At the bound itself it would pause and resume every few records."""
    states: list[State] = []

    def note() -> None:
        states.append(bench.progress.state)

    bench.then(
        polled(0, *range(BOUND)),
        doing(note),
        doing(lambda: bench.acknowledge(0, 0, 1, 2)),
        doing(note),
        doing(lambda: bench.acknowledge(0, 3)),
        doing(note),
        doing(lambda: bench.acknowledge(0, *range(4, BOUND))),
    )
    bench.worker.run()
    assert states == [State.PAUSED, State.PAUSED, State.RUNNING]


def test_polling_pauses_at_the_bound_of_held_bytes() -> None:
    bench = Bench(**{"max_inflight_bytes": 3 * raw().size, "input.max_bytes": raw().size})
    states: list[State] = []
    bench.then(
        polled(0, 0, 1, 2),
        doing(lambda: states.append(bench.progress.state)),
        doing(lambda: bench.acknowledge(0, 1, 2)),
        doing(lambda: states.append(bench.progress.state)),
        doing(lambda: bench.acknowledge(0, 0)),
        doing(lambda: states.append(bench.progress.state)),
    )
    bench.worker.run()
    assert states == [State.PAUSED, State.PAUSED, State.RUNNING]


@pytest.mark.allow_errors
def test_an_unacknowledged_record_is_named_although_all_else_moves(
    bench: Bench,
) -> None:
    """The other partition moves, and once kept /livez green for ever."""
    verdicts: list[tuple[bool, str]] = []
    n = 0

    def poll() -> list[RawRecord]:
        nonlocal n
        verdicts.append(bench.progress.live())
        bench.clock.sleep(2)
        for done in bench.source.answers:
            done(None)
        bench.source.answers.clear()
        bench.acknowledge(1, n - 1)
        n += 1
        if n < STALL:
            bench.source.script.append(poll)
        return [raw(n - 1, partition=1)]

    bench.then(polled(0, 5), poll)
    with pytest.raises(Fatal):
        bench.worker.run()
    assert verdicts[0] == (True, "running")
    live, words = verdicts[-1]
    assert not live
    assert words.startswith("the broker has not acknowledged the oldest of 2 records for")
    assert "; the oldest record is in[0] offset 5, polled" in words
    assert bench.source.commits[-1] == {P1: STALL - 1}


# -- the end -----------------------------------------------------------------------------------


def test_a_stop_drains_and_drops_records_that_were_never_handed_on(bench: Bench) -> None:
    def stop() -> None:
        bench.pipe.has_room = False
        bench.stop.set()

    bench.then(
        polled(0, 0, 1),
        doing(lambda: None),
        lambda: (stop(), polled(0, 2, 3)())[1],
        doing(lambda: bench.acknowledge(0, 0)),
        doing(lambda: bench.acknowledge(0, 1)),
    )
    bench.worker.run()
    assert [offsets_of(batch) for batch in bench.pipe.batches] == [[0, 1]]
    assert bench.source.commits[-1] == {P0: 2}
    assert bench.source.calls.count("pause") == 2
    assert bench.progress.state is State.STOPPED


def offsets_of(batch: Any) -> list[int]:
    return [entry.record.ref.offset for entry in batch.entries]


def test_a_stop_that_can_not_drain_reports_the_records_left() -> None:
    bench = Bench(shutdown_timeout=2)
    bench.then(polled(0, 0, 1), doing(lambda: None))
    began = bench.clock.now
    with pytest.raises(Fatal, match=r"shutdown_timeout \(2 s\): 2 records in flight"):
        bench.worker.run()
    assert bench.clock.now - began < 3
    assert bench.source.calls[-1] == "close"
    assert bench.progress.state is State.FAILED


def test_a_rebalance_during_a_stop_keeps_the_stop_s_deadline() -> None:
    bench = Bench(shutdown_timeout=10)
    bounds: list[float] = []
    bench.then(
        polled(0, 0),
        lambda: (bench.stop.set(), [])[1],
        doing(lambda: bounds.append(bench.worker._rebalance.latest_deadline - bench.clock.now)),
        doing(lambda: bench.acknowledge(0, 0)),
    )
    bench.worker.run()
    assert bounds == [pytest.approx(8, abs=0.1)], "the rest is for committing and leaving"
    assert bench.worker._rebalance.latest_deadline == 0, (
        "and once the pipeline is closed it waits no longer"
    )


def test_a_stop_that_can_not_commit_reports_the_partitions() -> None:
    bench = Bench(shutdown_timeout=2)

    def away(what: str) -> None:
        if what == "commit":
            raise BrokerAway("the coordinator")

    bench.source.before = away
    bench.then(polled(0, 0), doing(lambda: bench.acknowledge(0, 0)))
    with pytest.raises(Fatal, match="offsets of 1 partition not committed"):
        bench.worker.run()
    assert bench.source.calls[-1] == "close"


@pytest.mark.allow_errors
def test_after_a_fault_acknowledged_records_are_committed_without_a_drain(
    bench: Bench,
) -> None:
    def die() -> None:
        bench.acknowledge(0, 0)
        raise LookupError("an error that nobody knows")

    bench.then(polled(0, 0, 1), doing(die))
    with pytest.raises(StageCrashed, match="the main loop crashed: LookupError"):
        bench.worker.run()
    assert bench.source.commits == [{P0: 1}]
    assert bench.source.calls[-1] == "close"
    assert bench.progress.live() == (False, "failed")


@pytest.mark.allow_errors
def test_a_crashed_stage_stops_the_worker(bench: Bench) -> None:
    bench.then(doing(lambda: bench.completions.crashed("infer", SystemExit(1))))
    with pytest.raises(StageCrashed, match="the infer stage crashed: SystemExit"):
        bench.worker.run()
    assert bench.source.calls[-1] == "close"


def breaking(where: str, error: BaseException) -> Callable[[str], None]:
    def step(what: str) -> None:
        if what == where:
            raise error

    return step


@pytest.mark.allow_errors
@pytest.mark.parametrize(
    "error", [AttributeError("'NoneType' object"), AccessDenied("no"), SystemExit()]
)
@pytest.mark.parametrize("where", ["start", "close the pipeline", "absorb", "commit", "close"])
def test_the_group_is_left_although_an_earlier_step_fails(
    bench: Bench, where: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, a pipeline that could not be closed kept the worker in its group, DRAINING."""
    if where in ("start", "close the pipeline"):
        bench.pipe.before = breaking(where.split(maxsplit=1)[0], error)
    elif where == "absorb":
        once = iter([error])

        def absorb(*_: object) -> None:
            for planted in once:
                raise planted

        monkeypatch.setattr(bench.completions, "absorb_remaining", absorb)
    else:
        bench.source.before = breaking(where, error)
    bench.then(polled(0, 0), doing(lambda: bench.acknowledge(0, 0)))
    if where == "start":
        bench.source.script.clear()
    with pytest.raises(Fatal) as raised:
        bench.worker.run()
    assert isinstance(error, Fatal) == (raised.value is error)
    assert bench.source.calls[-1] == "close"
    assert bench.pipe.calls == ["start", "close"]
    assert bench.progress.state is State.FAILED


@pytest.mark.allow_errors
@pytest.mark.parametrize("error", [LookupError("odd"), BrokerAway("odd")])
def test_records_acknowledged_after_a_broken_completion_are_committed(
    bench: Bench, error: Exception
) -> None:
    """The broken one arrives while the pipeline is closed, before a good one."""

    def at_the_end(what: str) -> None:
        if what == "close":
            failed = error if isinstance(error, StreamlabelError) else None
            odd = _BrokenCompletion(error) if failed is None else Completion((), 0.0, failed)
            bench.completions.completed(odd)  # type: ignore[arg-type]
            bench.acknowledge(0, 0)

    bench.pipe.before = at_the_end
    bench.then(polled(0, 0), doing(lambda: bench.completions.failed(Fatal("planted"))))
    with pytest.raises(Fatal, match="planted"):
        bench.worker.run()
    assert bench.source.commits == [{P0: 1}]


class _BrokenCompletion:
    """A completion that can't be absorbed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def error(self) -> None:
        raise self._error


# -- reports -----------------------------------------------------------------------------------


def test_lag_is_counted_from_the_committed_offset(bench: Bench) -> None:
    bench.source.end, bench.source.at = 10, {Partition("in", 1): 0}
    bench.then(
        polled(0, 0, 1),
        doing(lambda: bench.acknowledge(0, 0, 1)),
        *[doing(lambda: (bench.source.answers[-1](None), bench.clock.sleep(1)))] * 4,
    )
    bench.worker.run()
    assert bench.value("offset_lag", topic="in", partition="0") == 8
    assert bench.value("offset_lag", topic="in", partition="1") == 10


def test_the_age_of_the_oldest_record_is_reported(bench: Bench) -> None:
    ages: list[float | None] = []

    def late() -> list[RawRecord]:
        return [raw(0, polled_at=bench.clock.now)]

    def note() -> None:
        ages.append(bench.value("oldest_uncommitted_age_seconds"))

    bench.then(
        late,
        doing(lambda: bench.clock.sleep(30)),
        doing(note),
        doing(lambda: bench.acknowledge(0, 0)),
        doing(lambda: bench.clock.sleep(1)),
        doing(note),
    )
    bench.worker.run()
    assert ages == [pytest.approx(30, abs=1), 0]
