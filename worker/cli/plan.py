"""Turn a bench's figures into settings, workers, partitions and a KEDA threshold, each explained.

streamlabel bench --json bench.json
streamlabel plan --rate 500 --latency-goal 500 --from bench.json

Exits 1 where the goal can't be met, 2 where there are no figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from worker.settings import Loaded

if TYPE_CHECKING:
    from worker.bench.plan import Advice

OPTIONS: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is wanted, and where the figures are."""
    parser.add_argument(
        "--rate", type=_positive, required=True, metavar="R", help="texts a second to label"
    )
    parser.add_argument(
        "--latency-goal",
        type=_positive,
        required=True,
        metavar="MS",
        help="p99 from a text's sending to its result, milliseconds",
    )
    parser.add_argument(
        "--from",
        dest="figures",
        type=Path,
        default=Path("bench.json"),
        metavar="FILE",
        help="what `streamlabel bench --json FILE` wrote [bench.json]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, loaded: Loaded) -> int:  # noqa: ARG001 - the commands' signature
    """Print the plan; returns 0."""
    from worker.bench.figures import read
    from worker.bench.plan import plan

    bench = read(args.figures)
    made = plan(bench, args.rate, args.latency_goal)
    if args.json:
        print(json.dumps(dataclasses.asdict(made)))
        return 0
    print(f"# for {args.rate:g} texts/s at a p99 of {args.latency_goal:g} ms, end to end")
    if bench.quick:
        print("# the figures are of a quick bench: take them as a first look")
    print("\n# streamlabel.toml")
    print("\n".join(_toml(made.settings)))
    print("\n# around the workers")
    for advice in made.deployment:
        print(f"{advice.name}: {advice.value}\n    {advice.why}")
    return 0


def _toml(settings: tuple[Advice, ...]) -> list[str]:
    """What stands outside of tables first, as TOML wants it."""
    lines, table = [], ""
    for advice in sorted(settings, key=lambda advice: "." in advice.name):
        section, _, key = advice.name.rpartition(".")
        if section != table:
            lines += ["", f"[{section}]"]
            table = section
        lines += [f"# {advice.why}", f"{key} = {json.dumps(advice.value)}"]
    return lines


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("more than 0")
    return number
