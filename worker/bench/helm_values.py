"""Writes a plan as values of the Helm chart in deploy/chart, each with its explanation.

Owns: the times that the autoscaler's windows follow from; pure.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from worker.bench.figures import BenchResult
from worker.bench.plan import Advice, CapacityPlan

# Longest time in which a partition had no result while three workers joined one, and while two of
# four left: 1.4 and 0.7 s at least once, 1.2 and 3.0 s exactly once, rounded up. `longest_stall_ms`
# of `python -m tests.chaos.scale`, 2026-11-27: 8 partitions, 150 records/s, a tiny model, Apache
# Kafka 4.4, 2 cores of an AMD EPYC (Zen 5) that were busy with other work.
REBALANCE_S: Final = 5
# The default of the Kubernetes autoscaler, and KEDA's before it stops the last worker.
_PATIENCE_S: Final = 300
_LOADS: Final = 10  # a worker runs at least so many times as long as it takes to start
_MEMORY: Final = 1.5  # of what was resident: a limit that is reached ends the worker
_MIB: Final = 2**20
_WIDTH: Final = 96
_GPU: Final = "as measured: one GPU for each worker; the chart sets model.device to cuda"

Node = Mapping[str, Any]  # values: `Advice` at the leaves


def helm_values(bench: BenchResult, plan: CapacityPlan, goal: str) -> str:
    """Return a values file of the chart, as YAML with comments.

    Args:
        bench: the figures that the plan comes from.
        plan: what to write.
        goal: the rate and the latency that were asked for.
    """
    head = (
        f"Values of deploy/chart {goal}: `streamlabel plan --format helm-values`, from a bench of "
        f"{bench.model.name} ({bench.model.dtype}) on {bench.machine.cpu}. Add where your brokers, "
        f"topics and model are.{' The figures are from `bench --quick`: rough.' * bench.quick}"
    )
    return "\n".join([*_comment(head, 0), "", *_lines(_values(bench, plan), 0)])


def _values(bench: BenchResult, plan: CapacityPlan) -> Node:
    of_plan = {advice.name: advice for advice in plan.deployment}
    workers, partitions = of_plan["workers"], of_plan["partitions"]
    gpu = bench.model.device == "cuda"
    return {
        "replicaCount": Advice(
            "", workers.value, f"without KEDA: {workers.why}; the input needs {partitions.value} "
            "partitions, so that the number of workers can double"
        ),
        **({"gpu": {"enabled": Advice("", value=True, why=_GPU)}} if gpu else {}),
        "resources": {"limits": dict(_limits(bench, of_plan))},
        "settings": _settings(plan),
        "keda": _keda(bench, of_plan),
    }  # fmt: skip


def _limits(bench: BenchResult, of_plan: Mapping[str, Advice]) -> Iterator[tuple[str, Advice]]:
    busy = of_plan.get("cores.worker")
    if bench.model.device == "cuda" and busy:
        # torch has a thread for each core of the machine, and leaves the work to the GPU.
        cores, why = max(1, math.ceil(float(busy.value))), f"{busy.value} rounded up: {busy.why}"
    else:
        cores = bench.model.threads
        why = (
            "the cores that the bench had; requests follow, so that each worker has them to "
            "itself, as measured"
        )
    yield "cpu", Advice("", str(cores), why)
    if bench.resident_bytes:
        size = math.ceil(bench.resident_bytes * _MEMORY / _MIB / 64) * 64
        yield "memory", Advice(
            "", f"{size}Mi", f"{_MEMORY} x the {bench.resident_bytes / _MIB:,.0f} MiB that were "
            "resident after a backlog; a worker that reaches its limit is killed"
        )  # fmt: skip


def _settings(plan: CapacityPlan) -> Node:
    tree: dict[str, Any] = {}
    for advice in plan.settings:
        section, _, name = advice.name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = advice
    return tree


def _keda(bench: BenchResult, of_plan: Mapping[str, Advice]) -> Node:
    ready = math.ceil(bench.cold_start_s)
    joined = math.ceil((REBALANCE_S + ready) / 5) * 5
    patience = max(_PATIENCE_S, _LOADS * ready)
    lag = of_plan["keda.lagThreshold"]
    return {
        "enabled": Advice("", value=True, why="needs KEDA in the cluster; else false"),
        "lagThreshold": lag,
        "maxReplicaCount": Advice(
            "", of_plan["keda.maxReplicaCount"].value, "the number of input partitions, all topics "
            "together, and at most that: a worker without a partition is idle"
        ),
        "limitToPartitionsWithLag": Advice(
            "", value=True, why="one busy or stuck partition asks for one worker, not for all"
        ),
        "cooldownPeriod": Advice(
            "", patience, f"the last worker stops after so many seconds without lag; a start takes "
            f"{ready} s, so a short pause of the stream costs none"
        ),
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(joined, ready, patience)}},
    }  # fmt: skip


def _behavior(joined: int, ready: int, patience: int) -> Node:
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": Advice(
                "", joined, f"a rebalance ({REBALANCE_S} s) and a start ({ready} s): the lag that a "
                "join causes must not order more workers"
            )
        },
        "scaleDown": {
            "stabilizationWindowSeconds": Advice(
                "", patience, "the highest need of this time counts, so that a moment without lag "
                "stops no worker; each stop is a rebalance"
            )
        },
    }  # fmt: skip


def _lines(node: Node, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for key, value in node.items():
        if isinstance(value, Advice):
            yield from _comment(value.why, depth)
            yield f"{indent}{key}: {json.dumps(value.value)}"
        else:
            yield f"{indent}{key}:"
            yield from _lines(value, depth + 1)


def _comment(text: str, depth: int) -> list[str]:
    mark = "  " * depth + "# "
    # A word is never broken: a comment's next line would lack its mark.
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_long_words=False,
        break_on_hyphens=False,
    )
