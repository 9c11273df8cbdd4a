"""From a bench's figures to settings, workers, partitions and a threshold for autoscaling. Pure.

Each piece of advice carries its formula. Must not import: kafka, torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from worker.bench.figures import Bench, EnginePoint
from worker.errors import SettingsError, StreamlabelError

# With arrivals at random and equal service times the mean wait is u / (2 * (1 - u)) service times
# (Pollaczek-Khinchine, M/D/1): 1.2 at 0.7, but 4.5 at 0.9, where small bursts already hurt.
MOST_UTILISATION: Final = 0.7
# Twice the workers can join before a topic needs more partitions, which moves keys.
_HEADROOM: Final = 2
_STAGES: Final = 4  # collecting, tokenise, infer, publish: one window each
_LONGER: Final = 1.5  # a window of longer texts than the average still closes by its records

Curve = Sequence[tuple[float, float]]  # 1 / (1 - utilisation), p99 in ms; ascending


@dataclass(frozen=True)
class Advice:
    """One setting or number, and the sentence that explains it."""

    name: str
    value: str | int | float
    why: str


@dataclass(frozen=True)
class Plan:
    """What to run; rates are texts/s.

    Attributes:
        capacity: of one worker at the chosen batches.
        utilisation: share of it that each worker is to carry.
        p99_ms: expected there, end to end.
        settings: for the workers.
        deployment: around them.
    """

    workers: int
    capacity: float
    utilisation: float
    p99_ms: float
    settings: tuple[Advice, ...]
    deployment: tuple[Advice, ...]


@dataclass(frozen=True)
class _Choice:
    """One of the measured budgets, and how far it can be loaded within the goal."""

    point: EnginePoint
    capacity: float
    utilisation: float
    p99_ms: float

    def workers(self, rate: float) -> int:
        return math.ceil(rate / (self.capacity * self.utilisation) - 1e-9)


def plan(bench: Bench, rate: float, goal_ms: float) -> Plan:
    """Fewest workers for `rate` texts/s at a p99 of at most `goal_ms`, end to end.

    Raises:
        SettingsError: the bench was too short to know a p99.
        StreamlabelError: no load that was measured meets the goal.
    """
    choices = [choice for point in _points(bench) if (choice := _choice(bench, point, goal_ms))]
    if not choices:
        first = bench.latency.loads[0]
        raise StreamlabelError(
            f"a p99 of {goal_ms:g} ms can't be met: it is {first.p99:.1f} ms at {first.share:.0%} "
            "load already, and more workers don't make one text faster; try a smaller "
            "batch.max_records or batch.latency_goal_ms, a smaller model or a faster machine, "
            "and measure again"
        )
    best = min(choices, key=lambda choice: (choice.workers(rate), choice.point.window))
    return Plan(
        workers=best.workers(rate),
        capacity=best.capacity,
        utilisation=best.utilisation,
        p99_ms=best.p99_ms,
        settings=tuple(_settings(bench, best.point, goal_ms)),
        deployment=tuple(_deployment(bench, best, rate, goal_ms)),
    )


def _points(bench: Bench) -> list[EnginePoint]:
    return [bench.engine.configured, *bench.engine.sweep]


def _choice(bench: Bench, point: EnginePoint, goal_ms: float) -> _Choice | None:
    """None where even the smallest measured load misses the goal.

    What was measured end to end is measured at the configured budget; another one is taken to
    change capacity as it changes the engine's speed, and latency as it changes a window's time.
    """
    configured = bench.engine.configured
    curve = [(x, p99 * point.window_s / configured.window_s) for x, p99 in _curve(bench)]
    x = _reached(curve, goal_ms)
    if x is None:
        return None
    utilisation = min(MOST_UTILISATION, 1 - 1 / x)
    capacity = bench.end_to_end.records_per_s * point.texts_per_s / configured.texts_per_s
    if point is not configured:
        capacity = min(capacity, point.texts_per_s)  # no worker is faster than its engine
    return _Choice(point, capacity, utilisation, _value(curve, 1 / (1 - utilisation)))


def _curve(bench: Bench) -> Curve:
    """p99 over 1 / (1 - utilisation), in which a queue's wait is a straight line; never falling."""
    loads = bench.latency.loads
    known = [load.p99 for load in loads if load.p99 is not None]
    if len(known) < len(loads) or not known:
        raise SettingsError(
            "the bench was too short to know a p99 at every load: measure longer (--seconds)"
        )
    rising = accumulate(known, max)
    return [(1 / (1 - load.share), p99) for load, p99 in zip(loads, rising, strict=True)]


def _reached(curve: Curve, goal_ms: float) -> float | None:
    """The largest x at which the curve is within the goal."""
    if curve[0][1] > goal_ms:
        return None
    for (x, low), (further, high) in pairwise(curve):
        if high > goal_ms:
            return x + (further - x) * (goal_ms - low) / (high - low)
    return curve[-1][0]


def _value(curve: Curve, x: float) -> float:
    for (left, low), (right, high) in pairwise(curve):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return curve[-1][1]


def _settings(bench: Bench, point: EnginePoint, goal_ms: float) -> list[Advice]:
    tokens = math.ceil(point.window * bench.model.tokens_per_text * _LONGER)
    return [
        Advice(
            "batch.forward_tokens",
            point.forward_tokens,
            f"of the budgets measured, the one that needs the fewest workers: "
            f"{point.texts_per_s:.1f} texts/s in the engine",
        ),
        Advice(
            "batch.max_records",
            point.window,
            f"the window of that measurement; the engine takes {point.window_s * 1000:.0f} ms "
            "for a full one",
        ),
        Advice(
            "batch.max_tokens",
            max(point.forward_tokens, tokens),
            f"max_records x {bench.model.tokens_per_text:.1f} tokens a text x {_LONGER}, so that "
            "a window of longer texts still fills; at least one forward pass",
        ),
        Advice(
            "batch.latency_goal_ms",
            goal_ms,
            "the goal itself: micro-batches become as small as it takes while nothing lags",
        ),
        Advice(
            "max_inflight_records",
            _STAGES * point.window,
            f"{_STAGES} x max_records: a window collects while one is tokenised, one labelled "
            "and one published; more would only wait, and come again after a crash",
        ),
        Advice("delivery", bench.delivery, "as measured; another one needs a bench of its own"),
    ]


def _deployment(bench: Bench, best: _Choice, rate: float, goal_ms: float) -> list[Advice]:
    workers, each = best.workers(rate), best.capacity * best.utilisation
    threads = bench.model.threads
    return [
        Advice(
            "workers",
            workers,
            f"rate / (capacity x utilisation) = {rate:g} / ({best.capacity:.1f} x "
            f"{best.utilisation:.2f}), rounded up; one process each, with {threads} core(s) "
            f"({bench.machine.cpu}) to itself, as measured",
        ),
        Advice(
            "utilisation",
            round(rate / (workers * best.capacity), 2),
            f"rate / (workers x capacity); at most {best.utilisation:.2f}, where a p99 of "
            f"{best.p99_ms:.0f} ms is expected: waits grow as 1 / (1 - utilisation), and at more "
            f"than {MOST_UTILISATION} small bursts already hurt",
        ),
        Advice(
            "partitions",
            workers * _HEADROOM,
            f"{_HEADROOM} x workers, for input and output: a worker without a partition is idle, a "
            "multiple gives each the same number, and partitions added later move keys",
        ),
        Advice(
            "keda.lagThreshold",
            max(1, math.floor(each * (goal_ms / 1000 + bench.commit_interval_s))),
            f"rate per worker x (goal + commit_interval) = {each:.1f} x ({goal_ms / 1000:g} + "
            f"{bench.commit_interval_s:g}) s: more lag for each worker can't be labelled within "
            "the goal; what is labelled counts as lag until its commit",
        ),
        Advice("keda.maxReplicaCount", workers * _HEADROOM, "the partitions"),
    ]
