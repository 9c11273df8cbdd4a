"""Derive settings, workers, partitions and a KEDA threshold from a bench, each explained.

    streamlabel bench --json bench.json
    streamlabel plan --rate 500 --latency-goal 500 --from bench.json

With the figures of several benches, of other models, number types or machines, print one line for
each instead: their labels may differ, so the choice is yours.

    streamlabel bench --model-dtype int8 --json int8.json
    streamlabel plan --rate 500 --latency-goal 500 --from bench.json int8.json

For Kubernetes, print values of the Helm chart.

    streamlabel plan --rate 500 --latency-goal 500 --format helm-values > values.yaml

Exits 1 if the goal can't be met, 2 if the figures are missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.settings import Loaded

if TYPE_CHECKING:
    from worker.bench.compare import Compared
    from worker.bench.plan import Advice

OPTIONS: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the goal and the figures."""
    parser.add_argument(
        "--rate", type=_positive, required=True, metavar="R", help="texts to label a second"
    )
    parser.add_argument(
        "--latency-goal",
        type=_positive,
        required=True,
        metavar="MS",
        help="99th percentile of the time from a text to its result, in milliseconds",
    )
    parser.add_argument(
        "--from",
        dest="figures",
        type=Path,
        nargs="+",
        default=[Path("bench.json")],
        metavar="FILE",
        help="figures that `streamlabel bench --json FILE` wrote; several are compared "
        "[default: bench.json]",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "helm-values"),
        default="text",
        help="text for people, one JSON object, or values for the Helm chart [default: text]",
    )
    parser.add_argument(
        "--json", dest="format", action="store_const", const="json", help="same as --format json"
    )


def run(args: argparse.Namespace, loaded: Loaded) -> int:  # noqa: ARG001 - the commands' signature
    """Print the plan or the comparison; return 0, or 1 if no figures meet the goal."""
    if len(args.figures) > 1:
        if args.format == "helm-values":
            args.command_parser.error("--format helm-values needs one file of figures")
        return _compare(args)
    from worker.bench.figures import read
    from worker.bench.plan import plan

    figures = read(args.figures[0])
    made = plan(figures, args.rate, args.latency_goal)
    if args.format == "json":
        print(json.dumps(dataclasses.asdict(made)))
        return 0
    if args.format == "helm-values":
        from worker.bench.helm_values import helm_values

        print(helm_values(figures, made, _goal(args)))
        return 0
    print(f"# {_goal(args)}")
    if figures.quick:
        print("# the figures are from `bench --quick`: rough")
    print("\n# streamlabel.toml")
    print("\n".join(_toml(made.settings)))
    print("\n# around the workers")
    for advice in made.deployment:
        print(f"{advice.name}: {advice.value}\n    {advice.why}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from rich.console import Console

    from worker.bench.compare import compared, comparison_table

    results = compared(args.figures, args.rate, args.latency_goal)
    if args.format == "json":
        print(json.dumps([_as_json(one) for one in results]))
    else:
        print(f"{_goal(args)}:\n")
        Console(highlight=False).print(comparison_table(results, args.rate))
        for one in results:
            if one.refused:
                print(f"\n{one.file}: {one.refused}")
        print("\nFor the settings of one, repeat the command with its figures alone.")
    return int(not any(one.plan for one in results))


def _as_json(one: Compared) -> dict[str, Any]:
    return {
        "figures": str(one.file),
        "model": one.bench.model.name,
        "dtype": one.bench.model.dtype,
        "machine": one.machine,
        "plan": dataclasses.asdict(one.plan) if one.plan else None,
        "refused": one.refused,
    }


def _goal(args: argparse.Namespace) -> str:
    return f"for {args.rate:g} texts/s at a p99 of {args.latency_goal:g} ms, end to end"


def _toml(settings: tuple[Advice, ...]) -> Iterator[str]:
    """Yield each setting as a dotted key, which fits into the file of `streamlabel init`."""
    for advice in settings:
        yield f"# {advice.why}"
        yield f"{advice.name} = {json.dumps(advice.value)}"


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number
