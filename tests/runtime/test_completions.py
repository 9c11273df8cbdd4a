"""Completions: only acknowledgements move offsets, and a crash reaches the main loop."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from schemas.dead_letter import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.doubles import outcome
from tests.support.records import CARD, raw
from worker.core.offsets import OffsetTracker
from worker.core.records import (
    Classified,
    Completion,
    Encoded,
    ModelCard,
    Partition,
    Prediction,
    RecordRef,
    WorkItem,
)
from worker.core.replay import Replay
from worker.errors import AccessDenied, Fatal, PublishRefused, StageCrashed
from worker.metrics import Metrics
from worker.runtime.completions import Completions
from worker.runtime.drift import DriftWatch
from worker.runtime.outcome_counts import create_route_series
from worker.runtime.progress import Progress
from worker.settings import DriftSettings, load

P = Partition("in", 0)


class Bench:
    """Three records in flight."""

    def __init__(self, drift: DriftSettings | None = None, *, routes: bool = False) -> None:
        self.clock, self.offsets, self.metrics = HandClock(), OffsetTracker(), Metrics()
        self.progress = Progress(10.0, self.metrics, self.clock)
        observers = [DriftWatch(drift, self.metrics)] if drift else []
        self.completions = Completions(
            self.offsets, self.metrics, self.progress, self.clock, observers, routes=routes
        )
        self.offsets.assign(P, 1)
        for offset in range(3):
            self.offsets.track(raw(offset))

    def acknowledge(self, *outcomes: Encoded) -> None:
        self.completions.completed(Completion(outcomes, self.clock.now))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"streamlabel_{name}", labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def dead(offset: int) -> Encoded:
    ref = RecordRef("in", 0, offset, 1)
    return Encoded(ref, "dead", None, b"{}", [], 0, reason=DeadLetterReason.NOT_JSON)


def test_acknowledged_records_are_counted_and_can_be_committed(bench: Bench) -> None:
    bench.acknowledge(outcome(0), dead(1))
    assert bench.offsets.committable() == {}, "not absorbed yet"
    bench.clock.sleep(2)
    bench.completions.absorb()
    assert bench.offsets.committable() == {P: 2}
    assert bench.value("records_published_total") == 1
    assert bench.value("records_dead_lettered_total", reason="not_json") == 1
    assert bench.value("inflight_records") == 1
    assert bench.value("stage_seconds_sum", stage="publish") == 2


def test_all_completions_are_absorbed_at_once(bench: Bench) -> None:
    for offset in range(3):
        bench.acknowledge(outcome(offset))
    bench.completions.absorb()
    assert bench.offsets.committable() == {P: 3}


def test_absorb_can_wait_for_the_first_completion(bench: Bench) -> None:
    """A rebalance relies on it, because the main loop is parked then."""
    answer = threading.Timer(0.05, bench.acknowledge, [outcome(0)])
    answer.start()
    bench.completions.absorb(wait=600)  # does not wait after the first
    answer.join()
    assert bench.offsets.committable() == {P: 1}


def test_absorb_counts_as_a_round_of_the_main_loop(bench: Bench) -> None:
    bench.clock.sleep(100)
    bench.completions.absorb(wait=0.001)
    assert bench.progress._last_round == bench.clock.now


def test_an_acknowledgement_of_an_old_assignment_is_ignored(bench: Bench) -> None:
    bench.offsets.assign(P, 2)
    bench.acknowledge(outcome(0))
    bench.completions.absorb()
    assert bench.offsets.committable() == {}


def test_observers_see_the_results() -> None:
    bench = Bench(DriftSettings(reference_records=100, window_records=100))
    for _ in range(2):
        bench.acknowledge(*(outcome(n) for n in range(100)))
    bench.completions.absorb()
    assert bench.value("label_drift") == pytest.approx(0)


# -- faults ------------------------------------------------------------------------------------


def test_a_refusal_is_raised_and_moves_no_offset(bench: Bench) -> None:
    error = PublishRefused("too large")
    bench.completions.completed(Completion((outcome(0),), 0.0, error))
    with pytest.raises(PublishRefused) as raised:
        bench.completions.absorb()
    assert raised.value is error
    assert bench.offsets.committable() == {}


def test_a_crash_is_raised_after_all_completions_are_absorbed(bench: Bench) -> None:
    bench.completions.crashed("infer", SystemExit("gone"))
    bench.acknowledge(outcome(0))
    with pytest.raises(StageCrashed, match="the infer stage crashed: SystemExit: gone") as raised:
        bench.completions.absorb()
    assert isinstance(raised.value.__cause__, SystemExit)
    assert bench.offsets.committable() == {P: 1}


def test_a_known_fault_of_a_stage_is_raised_unchanged(bench: Bench) -> None:
    error = AccessDenied("no")
    bench.completions.crashed("publish", error)
    with pytest.raises(AccessDenied) as raised:
        bench.completions.absorb()
    assert raised.value is error


@pytest.mark.allow_errors
def test_faults_while_stopping_are_logged_and_completions_absorbed(bench: Bench) -> None:
    bench.completions.failed(Fatal("one"))
    bench.completions.completed(Completion((outcome(2),), 0.0, PublishRefused("two")))
    bench.completions.failed(Fatal("three"))
    bench.acknowledge(outcome(0), outcome(1))
    bench.completions.absorb_remaining()
    assert bench.offsets.committable() == {P: 2}
    bench.completions.absorb()


def by(model: ModelCard, offset: int, label: str) -> Encoded:
    """Return a result of a model."""
    item = WorkItem(raw(offset), "hi")
    made = Classified(item, Prediction((0.5, 0.5), 1, truncated=False), model)
    return replace(outcome(offset), label=label, outcome=made)


def test_drift_starts_again_with_another_model() -> None:
    """Results of the model before that are acknowledged late are ignored."""
    watch = DriftWatch(DriftSettings(reference_records=100, window_records=100), Metrics())
    old, new = CARD, replace(CARD, name="new")
    watch.note([by(old, 0, "POSITIVE")] * 100)
    watch.note([by(old, 0, "NEGATIVE")] * 100)
    assert watch._labels.index > 2
    watch.follow(new)
    assert watch._labels.index == 0
    watch.note([by(old, 0, "POSITIVE"), by(new, 0, "NEGATIVE")] * 100)
    watch.note([by(old, 0, "POSITIVE"), by(new, 0, "NEGATIVE")] * 100)
    assert watch._labels.index < 0.1


def test_a_replay_has_an_old_timestamp_and_no_part_in_the_latency(bench: Bench) -> None:
    """An alert for slow records must not fire because dead letters are replayed days later."""
    now_ms = bench.clock.wall_ms()
    header = Replay(("in", 0, 7), attempt=1).header
    old = [
        replace(outcome(0), timestamp_ms=now_ms - 86_400_000, headers=[("a", b"b"), header]),
        replace(outcome(2), timestamp_ms=now_ms - 86_400_000, headers=[header], trace_id="f00d"),
    ]
    bench.acknowledge(old[0], replace(outcome(1), timestamp_ms=now_ms - 2_000), old[1])
    bench.completions.absorb()
    assert bench.value("records_published_total") == 3
    assert bench.value("end_to_end_seconds_count") == 1
    assert bench.value("end_to_end_seconds_sum") == 2
    assert bench.value("time_lag_seconds") == 2


def test_replays_alone_leave_the_latency_as_it_is(bench: Bench) -> None:
    bench.acknowledge(replace(outcome(0), timestamp_ms=bench.clock.wall_ms() - 3_000))
    header = Replay(("in", 0, 7), attempt=1).header
    bench.acknowledge(replace(outcome(1), headers=[header]))
    bench.completions.absorb()
    assert bench.value("end_to_end_seconds_count") == 1
    assert bench.value("time_lag_seconds") == 3


def test_an_offset_waits_for_the_copies_of_its_outcome() -> None:
    """A producer may be lost between the two: the record is then polled and published again."""
    bench = Bench(routes=True)
    main = replace(outcome(0), copies=1, route="angry")
    copy = replace(outcome(0), topic="copies", route="all", is_copy=True)
    bench.acknowledge(main, outcome(1))
    bench.completions.absorb()
    assert bench.offsets.committable() == {}
    assert bench.value("records_published_total") == 1
    bench.acknowledge(copy)
    bench.completions.absorb()
    assert bench.offsets.committable() == {P: 2}
    assert bench.value("records_published_total") == 2
    assert bench.value("routed_total", route="angry") == 1
    assert bench.value("routed_total", route="(none)") == 1
    assert bench.value("copies_total", route="all") == 1


def test_a_lost_copy_is_counted_and_the_record_is_done() -> None:
    bench = Bench(routes=True)
    lost = replace(dead(0), route="all", is_copy=True, reason=DeadLetterReason.RESULT_TOO_LARGE)
    bench.acknowledge(replace(outcome(0), copies=1), lost)
    bench.completions.absorb()
    assert bench.offsets.committable() == {P: 1}
    assert bench.value("copies_lost_total", route="all") == 1
    assert bench.value("records_dead_lettered_total", reason="result_too_large") == 0
    assert bench.value("routed_total", route="(none)") == 1


def test_a_note_is_counted_by_its_reason_and_is_no_result() -> None:
    bench = Bench()
    bench.acknowledge(replace(outcome(0), filtered="prepare.function", label=""))
    bench.completions.absorb()
    assert bench.offsets.committable() == {P: 1}
    assert bench.value("filtered_total", reason="prepare.function", route="") == 1
    assert bench.value("records_published_total") == 0


def test_the_series_of_routes_begin_at_zero() -> None:
    metrics = Metrics()
    routes = load(
        {
            "routes": '[{topic = "a"}, {topic = "b", also = true}, {drop = true}]',
            "output.filtered_topic": "n",
        },
        environ={},
    ).settings.routes
    create_route_series(metrics, routes)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"streamlabel_{name}_total", labels)

    assert value("routed", route="1") == value("routed", route="(none)") == 0
    assert value("copies", route="2") == value("copies_lost", route="2") == 0
    assert value("filtered", reason="route", route="3") == 0
