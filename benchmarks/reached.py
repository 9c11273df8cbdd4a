"""The figures that the goals are compared with, read from a machine's results.

Owns: nothing; pure, except for reading the results.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benchmarks.machines import Machine
from worker.bench.figures import BenchResult, CpuUse

GPU_PASS_TOKENS: Final = 65_536

Figure = Callable[[Machine], float | None]


def of_bench(figure: Callable[[BenchResult], float | None]) -> Figure:
    """Return a figure of the machine's reference bench."""
    return lambda machine: figure(machine.bench) if machine.bench else None


def of_cpu(figure: Callable[[CpuUse], float | None]) -> Figure:
    """Return a figure of the CPU times in that bench."""
    return of_bench(lambda bench: figure(bench.end_to_end.cpu) if bench.end_to_end.cpu else None)


def share_of_products(dtype: str) -> Figure:
    """Return engine : matrix products of the first bench in that number type."""

    def share(machine: Machine) -> float | None:
        for bench in machine.benches:
            if bench.model.dtype == dtype and bench.engine.roofline:
                return bench.engine.roofline.share
        return None

    return share


def ratio_of_dtypes(dtype: str, other: str) -> Figure:
    """Return the engine's speed in one number type relative to another, in the same rounds."""

    def ratio(bench: BenchResult) -> float | None:
        rates = {bench.model.dtype: bench.engine.configured.texts_per_s}
        rates |= {one.dtype: one.point.texts_per_s for one in bench.engine.dtypes if one.point}
        return rates[dtype] / rates[other] if dtype in rates and other in rates else None

    return of_bench(ratio)


def to_engine(*, own_cores: bool) -> Figure:
    """Return end to end : engine, if broker and clients had cores of their own, or had none."""

    def figure(machine: Machine) -> float | None:
        for bench in machine.benches:
            if bool(bench.end_to_end.client_cores) is own_cores:
                return bench.end_to_end.to_engine
        return None

    return figure


def efficiency_of_eight(machine: Machine) -> float | None:
    """Return the efficiency of eight workers."""
    steps = machine.scale.steps if machine.scale else ()
    return next((step.efficiency for step in steps if step.workers == 8), None)


def of_path(delivery: str) -> Figure:
    """Return the CPU microseconds of a record outside the model, under one guarantee."""

    def cost(machine: Machine) -> float | None:
        figures = machine.path(delivery)
        return float(figures["cpu_us_a_record"]) if figures else None

    return cost


def gpu_share(text_tokens: int) -> Figure:
    """Return the share of the peak with DistilBERT in bfloat16, at the largest pass."""
    wanted = ("DistilBERT", "bfloat16", text_tokens, GPU_PASS_TOKENS)

    def share(machine: Machine) -> float | None:
        engine: Any = (machine.gpu or {}).get("engine", {})
        for point in engine.get("points", ()):
            if (
                tuple(point.get(k) for k in ("model", "dtype", "text_tokens", "pass_tokens"))
                == wanted
            ):
                return float(point["share_of_peak"])
        return None

    return share


def gpu_best(name: str) -> Figure:
    """Return a figure of the fastest number of processes on one GPU."""

    def figure(machine: Machine) -> float | None:
        steps: Any = (machine.gpu or {}).get("end_to_end", ())
        known = [step for step in steps if isinstance(step, dict) and step.get("records_per_s")]
        best: dict[str, Any] = max(known, key=lambda step: step["records_per_s"], default={})
        value = best.get(name)
        return None if value is None else float(value)

    return figure
