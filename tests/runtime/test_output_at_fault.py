"""Completions: an output topic at fault is logged, counted, and stops the worker in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.dead_letter import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.doubles import outcome
from tests.support.records import CARD, raw
from worker.core.faults import OUTPUT, CircuitBreaker
from worker.core.offsets import OffsetTracker
from worker.core.records import Classified, Completion, Encoded, Partition, Prediction, WorkItem
from worker.errors import CircuitOpen
from worker.metrics import Metrics
from worker.runtime.completions import Completions
from worker.runtime.outcome_logs import ExpiredLog
from worker.runtime.progress import Progress

P = Partition("in", 0)


class Bench:
    """Ten records in flight; three refused results in a row open the circuit."""

    def __init__(self) -> None:
        self.clock, self.offsets, self.metrics = HandClock(), OffsetTracker(), Metrics()
        progress = Progress(10.0, self.metrics, self.clock)
        breaker = CircuitBreaker(3, 1.0, OUTPUT)
        self.completions = Completions(
            self.offsets, self.metrics, progress, self.clock, [ExpiredLog()], breaker
        )
        self.offsets.assign(P, 1)
        for offset in range(10):
            self.offsets.track(raw(offset))

    def acknowledge(self, *outcomes: Encoded) -> None:
        self.completions.completed(Completion(outcomes, self.clock.now))
        self.completions.absorb()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def dead(offset: int, reason: DeadLetterReason) -> Encoded:
    return replace(outcome(offset), topic="dead", reason=reason)


def test_results_refused_in_a_row_stop_the_worker(bench: Bench) -> None:
    """Acknowledged outcomes are still counted, and can be committed."""
    refused = (DeadLetterReason.RESULT_REFUSED, DeadLetterReason.RESULT_TOO_LARGE)
    bench.acknowledge(dead(0, refused[0]), dead(1, refused[1]), outcome(2))
    bench.acknowledge(dead(3, refused[0]), dead(4, DeadLetterReason.NOT_JSON))
    bench.acknowledge(dead(5, refused[0]))
    with pytest.raises(CircuitOpen, match="3 records in a row have a result that the output topic"):
        bench.acknowledge(dead(6, refused[1]))
    assert bench.offsets.committable() == {P: 7}


def test_refusals_with_results_between_them_do_not_count_as_in_a_row(
    bench: Bench,
) -> None:
    """Dead letters wait for the results before them, so they are acknowledged later."""
    bench.acknowledge(*(outcome(offset) for offset in (0, 2, 4, 6, 8)))
    letters = [dead(offset, DeadLetterReason.RESULT_REFUSED) for offset in (1, 3, 5, 7, 9)]
    bench.acknowledge(*letters)
    assert bench.offsets.committable() == {P: 10}


def test_the_first_expired_outcome_is_logged_and_each_is_counted(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.acknowledge(outcome(0))
    bench.acknowledge(replace(outcome(1), expired=True), replace(outcome(2), expired=True))
    bench.acknowledge(replace(outcome(3), expired=True))
    output = capsys.readouterr().out
    assert output.count("will be deleted soon") == 1
    assert "in[0] offset 1" in output
    assert bench.metrics.registry.get_sample_value("streamlabel_outcomes_expired_total") == 3


def test_the_age_of_an_outcome_is_that_of_its_record(bench: Bench) -> None:
    item = WorkItem(replace(raw(0), timestamp_ms=bench.clock.wall_ms() - 60_000), "hi")
    made = Classified(item, Prediction((1.0,), 1, truncated=False), CARD)
    now_ms = bench.clock.wall_ms()
    bench.acknowledge(replace(outcome(0), timestamp_ms=now_ms, outcome=made))
    assert bench.metrics.registry.get_sample_value("streamlabel_end_to_end_seconds_sum") == 60


def test_refused_notes_with_accepted_ones_between_them_are_not_in_a_row(bench: Bench) -> None:
    """A worker may filter nearly every record, and a few notes may lack the key they need."""
    for offset in range(0, 10, 2):
        bench.acknowledge(dead(offset, DeadLetterReason.RESULT_REFUSED))
        bench.acknowledge(replace(outcome(offset + 1), filtered="route"))
    assert bench.offsets.committable() == {P: 10}
