"""Completions: offsets move by acknowledgements alone, and a death is told to the main loop."""

from __future__ import annotations

import threading

import pytest

from schemas.dead_letter import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.doubles import outcome
from tests.support.records import raw
from worker.core.offsets import OffsetTracker
from worker.core.records import Completion, Encoded, Partition, RecordRef
from worker.errors import AccessDenied, Fatal, PublishRefused, StageCrashed
from worker.metrics import Metrics
from worker.runtime.completions import Completions
from worker.runtime.drift import DriftWatch
from worker.runtime.progress import Progress
from worker.settings import DriftSettings

P = Partition("in", 0)


class Bench:
    """Three records in flight."""

    def __init__(self, drift: DriftSettings | None = None) -> None:
        self.clock, self.offsets, self.metrics = HandClock(), OffsetTracker(), Metrics()
        self.progress = Progress(10.0, self.metrics, self.clock)
        observers = [DriftWatch(drift, self.metrics)] if drift else []
        self.completions = Completions(
            self.offsets, self.metrics, self.progress, self.clock, observers
        )
        self.offsets.assign(P, 1)
        for offset in range(3):
            self.offsets.track(raw(offset))

    def acknowledge(self, *some: Encoded) -> None:
        self.completions.completed(Completion(some, self.clock.now))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"streamlabel_{name}", labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def dead(offset: int) -> Encoded:
    ref = RecordRef("in", 0, offset, 1)
    return Encoded(ref, "dead", None, b"{}", [], 0, reason=DeadLetterReason.NOT_JSON)


def test_what_is_acknowledged_may_be_committed_and_is_counted(bench: Bench) -> None:
    bench.acknowledge(outcome(0), dead(1))
    assert bench.offsets.committable() == {}, "nobody has taken it in yet"
    bench.clock.sleep(2)
    bench.completions.absorb()
    assert bench.offsets.committable() == {P: 2}
    assert bench.value("records_published_total") == 1
    assert bench.value("records_dead_lettered_total", reason="not_json") == 1
    assert bench.value("inflight_records") == 1
    assert bench.value("stage_seconds_sum", stage="publish") == 2


def test_everything_that_is_there_is_taken_in(bench: Bench) -> None:
    for offset in range(3):
        bench.acknowledge(outcome(offset))
    bench.completions.absorb()
    assert bench.offsets.committable() == {P: 3}


def test_the_first_one_can_be_waited_for(bench: Bench) -> None:
    """In a rebalance nobody else would look."""
    answer = threading.Timer(0.05, bench.acknowledge, [outcome(0)])
    answer.start()
    bench.completions.absorb(wait=600)  # and nothing is waited for after it
    answer.join()
    assert bench.offsets.committable() == {P: 1}


def test_to_take_in_is_a_round_of_the_main_loop(bench: Bench) -> None:
    bench.clock.sleep(100)
    bench.completions.absorb(wait=0.001)
    assert bench.progress._last_round == bench.clock.now


def test_a_late_acknowledgement_of_an_old_assignment_moves_nothing(bench: Bench) -> None:
    bench.offsets.assign(P, 2)
    bench.acknowledge(outcome(0))
    bench.completions.absorb()
    assert bench.offsets.committable() == {}


def test_results_are_told_to_who_watches_for_drift() -> None:
    bench = Bench(DriftSettings(reference_records=100, window_records=100))
    for _ in range(2):
        bench.acknowledge(*(outcome(n) for n in range(100)))
    bench.completions.absorb()
    assert bench.value("label_drift") == pytest.approx(0)


# -- faults ------------------------------------------------------------------------------------


def test_a_refusal_stops_and_moves_nothing(bench: Bench) -> None:
    error = PublishRefused("too large")
    bench.completions.completed(Completion((outcome(0),), 0.0, error))
    with pytest.raises(PublishRefused) as raised:
        bench.completions.absorb()
    assert raised.value is error
    assert bench.offsets.committable() == {}


def test_a_death_is_told_after_what_was_acknowledged_before_it(bench: Bench) -> None:
    bench.completions.crashed("infer", SystemExit("gone"))
    bench.acknowledge(outcome(0))
    with pytest.raises(StageCrashed, match="the infer stage crashed: SystemExit: gone") as raised:
        bench.completions.absorb()
    assert isinstance(raised.value.__cause__, SystemExit)
    assert bench.offsets.committable() == {P: 1}


def test_a_fault_that_is_understood_is_told_as_it_is(bench: Bench) -> None:
    error = AccessDenied("no")
    bench.completions.crashed("publish", error)
    with pytest.raises(AccessDenied) as raised:
        bench.completions.absorb()
    assert raised.value is error


@pytest.mark.allow_errors
def test_while_stopping_faults_are_said_and_the_rest_is_taken_in(bench: Bench) -> None:
    bench.completions.failed(Fatal("one"))
    bench.completions.completed(Completion((outcome(2),), 0.0, PublishRefused("two")))
    bench.completions.failed(Fatal("three"))
    bench.acknowledge(outcome(0), outcome(1))
    bench.completions.absorb_remaining()
    assert bench.offsets.committable() == {P: 2}
    bench.completions.absorb()
