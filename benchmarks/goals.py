"""The project's goals for speed beside the figures of each machine, as rows.

Owns: the goals; pure, except for reading the results.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.machines import Machine
from benchmarks.reached import (
    GPU_PASS_TOKENS,
    Figure,
    efficiency_of_eight,
    gpu_best,
    gpu_share,
    of_bench,
    of_cpu,
    of_path,
    ratio_of_dtypes,
    share_of_products,
    to_engine,
)

NOT_MEASURED: Final = "-"


@dataclass(frozen=True)
class Goal:
    """One figure and its bound.

    Attributes:
        measurement: the description of the figure.
        direction: on which side of the bound the goal is met.
        bound: the goal.
        figure: returns the figure, or None if it was not measured.
        unit: of the figure.
    """

    measurement: str
    direction: Literal["at least", "at most"]
    bound: float
    figure: Figure
    unit: str = ""

    @property
    def condition(self) -> str:
        """The bound as a condition, such as `≤ 10 ms`."""
        sign = "≥" if self.direction == "at least" else "≤"
        return f"{sign} {self.bound:,g}{self.unit}"

    def cell(self, machine: Machine) -> str:
        """Return the figure with its verdict."""
        figure = self.figure(machine)
        if figure is None:
            return NOT_MEASURED
        met = figure >= self.bound if self.direction == "at least" else figure <= self.bound
        return f"{_rounded(figure)}{self.unit}, {'met' if met else 'not met'}"


def _rounded(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.2f}"


CPU_GOALS: Final = (
    Goal(
        "engine / `pipeline()` in float32, batches of 32 in arrival order, same texts",
        "at least",
        20,
        of_bench(lambda bench: bench.engine.to_pipeline),
    ),
    *(
        Goal(
            f"engine / matrix products, both in {dtype}", "at least", 0.7, share_of_products(dtype)
        )
        for dtype in ("bfloat16", "float32")
    ),
    Goal(
        "engine in int8 / in bfloat16 (goal for AMX)",
        "at least",
        1.5,
        ratio_of_dtypes("int8", "bfloat16"),
    ),
    Goal(
        "engine in int8 / in float32 (goal for VNNI without bfloat16)",
        "at least",
        2,
        ratio_of_dtypes("int8", "float32"),
    ),
    Goal(
        "CPU time of the worker a record / of the engine a text",
        "at most",
        1.07,
        of_cpu(lambda cpu: cpu.worker_to_engine),
    ),
    Goal(
        "end to end / engine, broker and clients on cores of their own",
        "at least",
        0.9,
        to_engine(own_cores=True),
    ),
    Goal(
        "end to end / engine, broker and clients sharing the worker's cores",
        "at least",
        0.8,
        to_engine(own_cores=False),
    ),
    Goal(
        "p99 end to end at 50 % load / one full window in the engine",
        "at most",
        3,
        of_bench(lambda bench: bench.latency.p99_to_window),
    ),
    Goal(
        "single text on an idle worker, without its bare forward pass",
        "at most",
        6,
        of_bench(lambda bench: bench.latency.alone_overhead_ms),
        unit=" ms",
    ),
    Goal(
        "CPU time of a record outside the model, at least once",
        "at most",
        60,
        of_path("at_least_once"),
        unit=" us",
    ),
    Goal(
        "CPU time of a record outside the model, exactly once",
        "at most",
        66,
        of_path("exactly_once"),
        unit=" us",
    ),
    Goal(
        "decode and encode a record in Avro / in JSON",
        "at most",
        2,
        lambda machine: machine.formats.to_json("Avro") if machine.formats else None,
    ),
    Goal(
        "cold start to ready, model cached",
        "at most",
        5,
        of_bench(lambda bench: bench.cold_start_s),
        unit=" s",
    ),
    Goal(
        "end to end / best framework",
        "at least",
        8,
        lambda machine: machine.peers.to_best if machine.peers else None,
    ),
    Goal(
        "end to end / hand-made loop around OpenVINO",
        "at least",
        1.3,
        lambda machine: machine.peers.to_loop if machine.peers else None,
    ),
    Goal(
        "8 workers / 8 x one worker, with a model that only sleeps",
        "at least",
        0.95,
        efficiency_of_eight,
    ),
)

GPU_GOALS: Final = (
    *(
        Goal(
            f"DistilBERT in bfloat16 / matrix products, texts of {tokens} tokens, "
            f"{GPU_PASS_TOKENS:,} tokens a pass",
            "at least",
            0.5,
            gpu_share(tokens),
        )
        for tokens in (22, 256)
    ),
    Goal(
        "end to end, all processes on one GPU",
        "at least",
        60_000,
        gpu_best("records_per_s"),
        unit=" records/s",
    ),
    Goal("share of the time in which that GPU is busy", "at least", 0.8, gpu_best("gpu_busy")),
)


def rows(goals: Sequence[Goal], machines: Sequence[Machine]) -> list[tuple[str, ...]]:
    """Return measurement, goal, and each machine's figure with its verdict."""
    return [
        (goal.measurement, goal.condition, *(goal.cell(machine) for machine in machines))
        for goal in goals
    ]


def measured(goals: Sequence[Goal], machines: Sequence[Machine]) -> list[Machine]:
    """Return the machines that have a figure for one of the goals."""
    return [one for one in machines if any(goal.figure(one) is not None for goal in goals)]
