"""Computes settings, workers, partitions and an autoscaling threshold from a bench's figures.

Owns: the formulas, and an explanation of each result; pure.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, get_args

from worker.bench.figures import BenchResult, EnginePoint
from worker.core.counted import counted
from worker.errors import SettingsError, StreamlabelError
from worker.settings import ModelSettings

# With random arrivals and equal service times the mean wait is u / (2 * (1 - u)) service times
# (Pollaczek-Khinchine, M/D/1): 1.2 at 0.7, but 4.5 at 0.9, where small bursts cause long waits.
MAX_UTILISATION: Final = 0.7
# The number of workers can double before the topic needs more partitions, which moves keys.
_HEADROOM: Final = 2
_STAGES: Final = 4  # collecting, tokenise, infer, publish: one window each
_TOKEN_MARGIN: Final = 1.5  # so that max_records closes a window of longer texts, too

Curve = Sequence[tuple[float, float]]  # 1 / (1 - utilisation), p99 in ms; ascending


@dataclass(frozen=True)
class Advice:
    """One setting or number, and its explanation."""

    name: str
    value: str | int | float
    why: str


@dataclass(frozen=True)
class CapacityPlan:
    """The workers and settings for a rate; rates are texts/s.

    Attributes:
        capacity: throughput of one worker with the chosen batches.
        utilisation: maximum share of the capacity that a worker is loaded with.
        p99_ms: expected end-to-end latency at that utilisation.
        settings: settings of the workers.
        deployment: replicas, partitions and the autoscaler.
    """

    workers: int
    capacity: float
    utilisation: float
    p99_ms: float
    settings: tuple[Advice, ...]
    deployment: tuple[Advice, ...]


@dataclass(frozen=True)
class _Choice:
    """One of the measured budgets, and the utilisation at which it meets the goal."""

    point: EnginePoint
    capacity: float
    utilisation: float
    p99_ms: float

    def workers(self, rate: float) -> int:
        return math.ceil(rate / (self.capacity * self.utilisation) - 1e-9)


def plan(bench: BenchResult, rate: float, goal_ms: float) -> CapacityPlan:
    """Return the fewest workers for `rate` texts/s at a p99 of at most `goal_ms`, end to end.

    Raises:
        SettingsError: the bench was too short to measure a p99.
        StreamlabelError: no measured load meets the goal.
    """
    choices = [choice for point in _points(bench) if (choice := _choice(bench, point, goal_ms))]
    if not choices:
        first = bench.latency.loads[0]
        raise StreamlabelError(
            f"a p99 of {goal_ms:g} ms can't be met: p99 is {first.p99:.1f} ms at {first.share:.0%} "
            "load, and more workers don't speed up a single text; try a smaller "
            "batch.max_records or batch.latency_goal_ms, a smaller model or a faster machine, "
            "and measure again"
        )
    best = min(choices, key=lambda choice: (choice.workers(rate), choice.point.window))
    return CapacityPlan(
        workers=best.workers(rate),
        capacity=best.capacity,
        utilisation=best.utilisation,
        p99_ms=best.p99_ms,
        settings=tuple(_settings(bench, best.point, goal_ms)),
        deployment=tuple(_deployment(bench, best, rate, goal_ms)),
    )


def _points(bench: BenchResult) -> list[EnginePoint]:
    return [bench.engine.configured, *bench.engine.sweep]


def _choice(bench: BenchResult, point: EnginePoint, goal_ms: float) -> _Choice | None:
    """Return how far a budget can be loaded, or None if its smallest load misses the goal.

    The end-to-end figures are those of the configured budget. For another budget, capacity is
    scaled by the engine's speed, and latency by the time of a window.
    """
    configured = bench.engine.configured
    curve = [(x, p99 * point.window_s / configured.window_s) for x, p99 in _curve(bench)]
    x = _reached(curve, goal_ms)
    if x is None:
        return None
    utilisation = min(MAX_UTILISATION, 1 - 1 / x)
    capacity = bench.end_to_end.records_per_s * point.texts_per_s / configured.texts_per_s
    if point is not configured:
        capacity = min(capacity, point.texts_per_s)  # a worker is never faster than its engine
    return _Choice(point, capacity, utilisation, _value(curve, 1 / (1 - utilisation)))


def _curve(bench: BenchResult) -> Curve:
    """Return p99 over 1 / (1 - utilisation), in which a queue's wait is linear; never falling."""
    loads = bench.latency.loads
    known = [load.p99 for load in loads if load.p99 is not None]
    if len(known) < len(loads) or not known:
        raise SettingsError(
            "the bench was too short for a p99 at every load: measure longer with --seconds"
        )
    rising = accumulate(known, max)
    return [(1 / (1 - load.share), p99) for load, p99 in zip(loads, rising, strict=True)]


def _reached(curve: Curve, goal_ms: float) -> float | None:
    """Return the largest x at which the curve meets the goal, or None if there is none."""
    if curve[0][1] > goal_ms:
        return None
    for (left, low), (right, high) in pairwise(curve):
        if high > goal_ms:
            return left + (right - left) * (goal_ms - low) / (high - low)
    return curve[-1][0]


def _value(curve: Curve, x: float) -> float:
    for (left, low), (right, high) in pairwise(curve):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return curve[-1][1]


def _settings(bench: BenchResult, point: EnginePoint, goal_ms: float) -> list[Advice]:
    tokens = math.ceil(point.window * bench.model.tokens_per_text * _TOKEN_MARGIN)
    return [
        *_dtype(bench),
        Advice(
            "batch.forward_tokens",
            point.forward_tokens,
            f"needs the fewest workers of the measured budgets: "
            f"{point.texts_per_s:.1f} texts/s in the engine",
        ),
        Advice(
            "batch.max_records",
            point.window,
            f"the window of that measurement; a full one takes {point.window_s * 1000:.0f} ms "
            "in the engine",
        ),
        Advice(
            "batch.max_tokens",
            max(point.forward_tokens, tokens),
            f"max_records x {bench.model.tokens_per_text:.1f} tokens a text x {_TOKEN_MARGIN}, so "
            "that a window of longer texts still fills; at least one forward pass",
        ),
        Advice(
            "batch.latency_goal_ms",
            goal_ms,
            "the goal itself: micro-batches shrink to meet it while the worker keeps up",
        ),
        Advice(
            "max_inflight_records",
            _STAGES * point.window,
            f"{_STAGES} x max_records: one window each is collected, tokenised, labelled and "
            "published; more records would wait, and be redelivered after a crash",
        ),
        Advice("delivery", bench.delivery, "as measured; another guarantee needs its own bench"),
    ]


def _dtype(bench: BenchResult) -> Iterator[Advice]:
    """Yield the number type, if `model.dtype` has its name."""
    dtype = bench.model.dtype
    if dtype not in get_args(ModelSettings.model_fields["dtype"].annotation):
        return
    measured = bench.engine.configured.texts_per_s
    others = [
        f"{other.dtype} does {other.point.texts_per_s / measured:.2f} x as much in the engine"
        for other in bench.engine.dtypes
        if other.point
    ]
    why = "; ".join(["as measured; `auto` chooses by the processor", *others])
    hint = "; another number type needs its own bench" if others else ""
    yield Advice("model.dtype", dtype, why + hint)


def _cores(bench: BenchResult, rate: float, workers: int) -> Iterator[Advice]:
    """Yield the cores that worker and broker keep busy, if their CPU time was measured."""
    cpu = bench.end_to_end.cpu
    if cpu is None:
        return
    yield Advice(
        "cores.worker",
        round(rate / workers * cpu.worker / 1e6, 2),
        f"(rate / workers) x CPU time a record = {rate / workers:.1f}/s x {cpu.worker:.0f} us: the "
        "cores that a worker keeps busy on average; a limit below that slows it down",
    )
    if cpu.broker is not None:
        yield Advice(
            "cores.broker",
            round(rate * cpu.broker / 1e6, 2),
            f"rate x CPU time a record = {rate:g}/s x {cpu.broker:.0f} us, all brokers together "
            f"({bench.machine.broker}, without replicas)",
        )


def _deployment(bench: BenchResult, best: _Choice, rate: float, goal_ms: float) -> list[Advice]:
    workers, each = best.workers(rate), best.capacity * best.utilisation
    threads = counted(bench.model.threads, "core")
    return [
        Advice(
            "workers",
            workers,
            f"rate / (capacity x utilisation) = {rate:g} / ({best.capacity:.1f} x "
            f"{best.utilisation:.2f}), rounded up; each is one process with {threads} "
            f"({bench.machine.cpu}) of its own, as measured",
        ),
        Advice(
            "utilisation",
            round(rate / (workers * best.capacity), 2),
            f"rate / (workers x capacity); the expected p99 at the maximum of "
            f"{best.utilisation:.2f} is {best.p99_ms:.0f} ms; waits grow as 1 / (1 - utilisation), "
            f"and above {MAX_UTILISATION} small bursts cause long waits",
        ),
        *_cores(bench, rate, workers),
        Advice(
            "partitions",
            workers * _HEADROOM,
            f"{_HEADROOM} x workers, for input and output: a worker without a partition is idle, a "
            "multiple gives each worker the same number, and adding partitions later moves keys",
        ),
        Advice(
            "keda.lagThreshold",
            max(1, math.floor(each * (goal_ms / 1000 + bench.commit_interval_s))),
            f"rate per worker x (goal + commit_interval) = {each:.1f} x ({goal_ms / 1000:g} + "
            f"{bench.commit_interval_s:g}) s: a worker can't label more lag within the goal; "
            "labelled records count as lag until they are committed",
        ),
        Advice("keda.maxReplicaCount", workers * _HEADROOM, "the number of partitions"),
    ]
