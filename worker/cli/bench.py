"""Measure your model and your texts on this machine: the engine alone, and through a broker.

Compares the engine with transformers' own pipeline(), with bare matrix products and with other
number types, drains backlogs, then sends texts at 10, 50 and 90 % of the measured throughput.
Counts the CPU time of worker, broker and clients. Starts a small embedded broker, or uses the one
at --bootstrap-servers, where it creates topics and deletes them at the end. Keep the machine
otherwise idle. Each run measures one model; `streamlabel plan` turns the figures into settings, and
compares those of several runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from worker.settings import Loaded

OPTIONS: tuple[str, ...] = (
    *("kafka.", "model.", "prepare.", "decision.", "batch.", "cache.", "output.compression"),
    *("delivery", "commit_interval", "max_inflight_"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the texts, the durations and the output files."""
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="UTF-8, one text a line [default: 4,200 rated tweets]",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round of each measurement, as a trial"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="seconds for each drain and for each load [default: 20; 5 with --quick]",
    )
    parser.add_argument(
        "--client-cores",
        type=int,
        choices=range(65),
        default=0,
        metavar="N",
        help="cores of their own for broker, sender and reader; 0 lets them share the worker's "
        "[default: 0]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw latency over load into this .svg, .png or .pdf file",
    )


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Measure, print the figures and return 0."""
    from worker.bench.run import perform

    return perform(args, loaded, OPTIONS)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.5 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text} is out of range: give 0.5 to 600 seconds")
    return seconds
