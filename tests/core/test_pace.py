"""Pace: micro-batches wait for more records while that is free, and keep to the latency goal."""

from __future__ import annotations

import math
from statistics import mean, median, quantiles

import pytest

from tests.core.simulation import Model, Policy, Worker, adaptive, arrivals, fixed
from worker.core.pace import Demand, Pace, Throughput, most_tokens
from worker.core.records import DEFAULT_FORWARD_TOKENS

OLD = fixed(0.02)
SLOW = Model(fixed=0.02, token=0.0004)  # like a small CPU
QUICK = Model(fixed=0.005, token=0.00001)  # like a GPU
STEADY = Model(fixed=0.05, token=0.00001)  # a fixed cost for each pass, so batching matters most
TEXT = 24.0  # tokens, on average


def simulated(
    model: Model, load: float, policy: Policy = adaptive, goal: float | None = None, n: int = 1500
) -> Worker:
    """Simulate arrivals at a share of the capacity of full micro-batches."""
    return Worker(model, policy, goal).run(arrivals(model.capacity(TEXT) * load, n))


def p99(worker: Worker) -> float:
    return quantiles(worker.latencies, n=100)[98]


# -- the demand --------------------------------------------------------------------------------


def test_an_idle_model_demands_a_micro_batch_at_once() -> None:
    pace = Pace()
    assert pace.demand(waiting=0) == Demand(-math.inf, math.inf)
    pace.handed()
    pace.began(100, 1.0)
    pace.ended(2.0)
    assert pace.demand(waiting=1).at == -math.inf


def test_there_is_no_demand_while_another_micro_batch_is_on_its_way() -> None:
    pace = Pace()
    pace.handed()
    assert pace.demand(waiting=1).at == math.inf
    pace.began(100, 1.0)
    # Not measured yet: as if the model were about to finish.
    assert pace.demand(waiting=1).at <= 1.0
    pace.handed()
    assert pace.demand(waiting=1).at == math.inf


def test_a_busy_model_demands_the_next_earlier_by_the_time_of_tokenising() -> None:
    pace = Pace()
    for _ in range(2):
        pace.handed()
    pace.began(100, 1.0)
    pace.ended(2.0)  # 100 tokens a second
    pace.tokenised(100, 0.1)  # 1,000 tokens a second
    pace.began(200, 10.0)
    assert pace.demand(waiting=0).at == pytest.approx(12.0, abs=0.01)
    assert pace.demand(waiting=500).at == pytest.approx(11.5, abs=0.01)


def test_throughput_is_a_moving_average_weighted_by_size() -> None:
    throughput = Throughput()
    assert (throughput.rate, throughput.seconds(10)) == (0.0, 0.0)
    throughput.note(1000, 1.0)
    assert (throughput.rate, throughput.seconds(500)) == (1000.0, 0.5)
    throughput.note(1, 0.1)  # a small micro-batch that is slow for its size
    assert throughput.rate > 900
    for _ in range(50):
        throughput.note(500, 5.0)
    assert throughput.rate == pytest.approx(100, rel=0.01)


def test_a_measurement_of_zero_seconds_is_ignored() -> None:
    throughput = Throughput()
    throughput.note(0, 0.0)
    assert throughput.rate == 0.0


@pytest.mark.parametrize(
    ("goal", "rate", "waiting", "allowed"),
    [
        (None, 1000.0, 10, math.inf),
        (0.3, 0.0, 10, math.inf),  # not measured yet
        (0.3, 1000.0, 10, 100.0),
        (0.3, 1000.0, 300, 100.0),
        (0.3, 1000.0, 301, math.inf),  # too much for the goal, so the size is not limited
    ],
)
def test_the_goal_allows_a_third_of_its_tokens(
    goal: float | None, rate: float, waiting: int, allowed: float
) -> None:
    assert most_tokens(goal, rate, waiting) == pytest.approx(allowed)


def test_a_micro_batch_takes_no_longer_than_max_seconds() -> None:
    pace = Pace(max_seconds=2.0)
    assert pace.demand(0)[1:3] == (4_096, "seconds")  # not measured yet: one forward pass
    pace.handed()
    pace.began(100, 1.0)
    pace.ended(2.0)  # 100 tokens a second
    assert pace.demand(0)[1:3] == (200, "seconds")


def test_the_stricter_of_goal_and_max_seconds_limits_a_micro_batch() -> None:
    pace = Pace(0.3, max_seconds=2.0)
    pace.handed()
    pace.began(100, 1.0)
    pace.ended(2.0)
    assert pace.demand(30)[1:3] == (pytest.approx(10), "goal")
    assert pace.demand(31)[1:3] == (200, "seconds")  # too much waits for the goal


def test_the_demand_tells_how_long_the_model_is_busy() -> None:
    pace = Pace()
    for _ in range(3):
        pace.handed()
    pace.began(100, 1.0)
    pace.ended(2.0)
    pace.began(50, 2.0)
    assert (pace.demand(10).at, pace.demand(10).busy_until) == (math.inf, 2.5)


# -- against a fixed delay, in simulated time --------------------------------------------------


@pytest.mark.parametrize("model", [SLOW, QUICK, STEADY])
@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_latency_is_no_worse_than_with_a_fixed_delay(model: Model, load: float) -> None:
    """Neither for the median nor for slow records; at a low load both are much better."""
    new, old = simulated(model, load), simulated(model, load, OLD)
    assert median(new.latencies) < (0.75 if load < 0.5 else 1.05) * median(old.latencies)
    assert p99(new) < 1.05 * p99(old)


@pytest.mark.parametrize("model", [SLOW, QUICK, STEADY])
def test_a_single_record_does_not_wait(model: Model) -> None:
    alone = Worker(model, adaptive).run([(float(10 * n), 25) for n in range(20)])
    assert max(alone.latencies) < model.seconds(25) + 0.001


def test_a_busy_model_gets_larger_micro_batches_than_with_a_timer() -> None:
    """With a fixed cost for each pass, at half the load: fewer passes."""
    new, old = simulated(STEADY, 0.5), simulated(STEADY, 0.5, OLD)
    assert mean(new.sizes) > mean(old.sizes)
    assert new.worked < old.worked
    assert p99(new) < p99(old)


def test_a_backlog_keeps_the_model_busy_with_full_micro_batches() -> None:
    all_at_once = Worker(SLOW, adaptive).run([(0.0, 25)] * 2000)
    assert mean(all_at_once.sizes) > 100
    assert all_at_once.worked > 0.99 * all_at_once.now


# -- the latency goal --------------------------------------------------------------------------


def test_a_goal_makes_micro_batches_smaller_so_that_a_burst_is_published_earlier() -> None:
    """The last records are delayed only by a few more passes, and all meet the goal."""
    goal = 0.9
    bursts = [(3.0 * n, 25) for n in range(1, 40) for _ in range(60)]
    with_goal, without = (Worker(SLOW, adaptive, g).run(bursts) for g in (goal, None))
    assert max(with_goal.sizes[10:]) < 40 < max(without.sizes[10:])
    assert mean(with_goal.latencies) < 0.85 * mean(without.latencies)
    assert p99(with_goal) < goal


def test_the_size_is_not_limited_while_more_waits_than_the_goal_allows() -> None:
    backlog = [(0.0, 25)] * 2000
    assert mean(Worker(SLOW, adaptive, 0.1).run(backlog).sizes) > 80


def test_the_speed_of_another_model_is_measured_from_the_start() -> None:
    pace = Pace(max_seconds=2.0)
    pace.began(1000, 0.0)
    pace.ended(1.0)
    assert pace.demand(0).most_tokens == 2000
    pace.restart()
    assert pace.demand(0).most_tokens == DEFAULT_FORWARD_TOKENS, "one forward pass"
