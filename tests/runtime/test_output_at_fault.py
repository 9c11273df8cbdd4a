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
from worker.core.records import (
    Classified,
    Completion,
    DeadLettered,
    Encoded,
    Partition,
    Prediction,
    WorkItem,
)
from worker.core.refusals import TopicBreakers
from worker.errors import CircuitOpen
from worker.metrics import Metrics
from worker.runtime.completions import Completions
from worker.runtime.outcome_logs import ExpiredLog
from worker.runtime.progress import Progress

P = Partition("in", 0)
_BY_A_TOPIC = (DeadLetterReason.RESULT_REFUSED, DeadLetterReason.RESULT_TOO_LARGE)


class Bench:
    """Some records in flight; three refused results in a row open the circuit."""

    def __init__(self, records: int = 10, *, ratio: float = 1.0, routes: bool = False) -> None:
        self.clock, self.offsets, self.metrics = HandClock(), OffsetTracker(), Metrics()
        progress = Progress(10.0, self.metrics, self.clock)
        self.completions = Completions(
            self.offsets,
            self.metrics,
            progress,
            self.clock,
            [ExpiredLog()],
            TopicBreakers(CircuitBreaker(3, ratio, OUTPUT)),
            routes=routes,
        )
        self.offsets.assign(P, 1)
        for offset in range(records):
            self.offsets.track(raw(offset))

    def acknowledge(self, *outcomes: Encoded) -> None:
        self.completions.completed(Completion(outcomes, self.clock.now))
        self.completions.absorb()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def dead(offset: int, reason: DeadLetterReason, by: str = "out") -> Encoded:
    """Return a dead letter, in place of an outcome that the topic `by` refused if so."""
    refused_by = by if reason in _BY_A_TOPIC else ""
    letter = DeadLettered(raw(offset), reason, "refused", refused_by=refused_by)
    return replace(outcome(offset), topic="dead", reason=reason, outcome=letter)


def note(offset: int) -> Encoded:
    return replace(outcome(offset), topic="notes", filtered="route")


def test_results_refused_in_a_row_stop_the_worker(bench: Bench) -> None:
    """Acknowledged outcomes are still counted, and can be committed."""
    refused = _BY_A_TOPIC
    bench.acknowledge(dead(0, refused[0]), dead(1, refused[1]), outcome(2))
    bench.acknowledge(dead(3, refused[0]), dead(4, DeadLetterReason.NOT_JSON))
    bench.acknowledge(dead(5, refused[0]))
    with pytest.raises(CircuitOpen, match=r"3 records in a row .* the topic 'out' refuses"):
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
        bench.acknowledge(dead(offset, DeadLetterReason.RESULT_REFUSED, "notes"))
        bench.acknowledge(note(offset + 1))
    assert bench.offsets.committable() == {P: 10}


def test_accepted_notes_do_not_hide_a_topic_that_refuses_each_result(bench: Bench) -> None:
    """A route drops every second record, and the notes' topic accepts them."""
    for offset in range(0, 4, 2):
        bench.acknowledge(dead(offset, DeadLetterReason.RESULT_REFUSED), note(offset + 1))
    with pytest.raises(CircuitOpen, match=r"3 records in a row .* the topic 'out' refuses"):
        bench.acknowledge(dead(4, DeadLetterReason.RESULT_REFUSED))


def test_refusals_by_several_topics_add_up(bench: Bench) -> None:
    """No topic refuses three in a row, and no record is accepted."""
    bench.acknowledge(dead(0, DeadLetterReason.RESULT_REFUSED))
    bench.acknowledge(dead(1, DeadLetterReason.RESULT_REFUSED, "notes"))
    with pytest.raises(CircuitOpen, match="3 records in a row"):
        bench.acknowledge(dead(2, DeadLetterReason.RESULT_REFUSED))


def test_a_topic_that_refuses_most_of_its_results_is_found_among_many_notes() -> None:
    """Two of three results are refused, and two of three records are notes."""
    bench = Bench(2_400, ratio=0.5)

    def acknowledge_all() -> None:
        for offset in range(0, 2_400, 3):
            refused = dead(offset, DeadLetterReason.RESULT_REFUSED)
            bench.acknowledge(outcome(offset) if offset % 9 == 0 else refused)
            bench.acknowledge(note(offset + 1), note(offset + 2))

    with pytest.raises(CircuitOpen, match=r"501 of the last \d+ records .* the topic 'out'"):
        acknowledge_all()


def test_results_do_not_hide_a_topic_that_refuses_each_copy() -> None:
    """Every second record has a copy, which its topic refuses."""
    bench = Bench(routes=True)

    def acknowledge(offset: int) -> None:
        letter = dead(offset, DeadLetterReason.RESULT_REFUSED, "urgent")
        copy = replace(letter, is_copy=True, route="urgent")
        bench.acknowledge(replace(outcome(offset), copies=1), copy, outcome(offset + 1))

    acknowledge(0)
    acknowledge(2)
    with pytest.raises(CircuitOpen, match=r"3 records in a row .* the topic 'urgent' refuses"):
        acknowledge(4)
    assert bench.offsets.committable() == {P: 6}


def test_a_circuit_opens_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Each refusal that was under way when the worker stopped was logged as another error."""
    letters = [dead(offset, DeadLetterReason.RESULT_REFUSED) for offset in range(6)]
    with pytest.raises(CircuitOpen):
        bench.acknowledge(*letters[:3])
    for letter in letters[3:]:
        bench.completions.completed(Completion((letter,), bench.clock.now))
    bench.completions.absorb_remaining()
    assert "error while stopping" not in capsys.readouterr().out
    assert bench.offsets.committable() == {P: 6}
