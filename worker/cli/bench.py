"""Measure this machine, your model and your texts: the engine alone, and through a broker.

Compares the engine with transformers' own pipeline() and with bare matrix products, drains a
backlog, then sends texts at 10, 50 and 90 % of what that showed. Uses a small embedded broker, or
the one at --bootstrap-servers, with topics of its own that it deletes again. Nothing else should
run on the machine meanwhile. `streamlabel plan` turns the figures into settings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from worker.settings import Loaded

OPTIONS: tuple[str, ...] = (
    *("kafka.", "model.", "batch.", "cache.", "output.compression"),
    *("delivery", "commit_interval", "max_inflight_"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The texts, how long, and where the figures go."""
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="UTF-8, one text a line [4,200 rated tweets]"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of each, short: to see that it works"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="length of each drain and of each load [20; 5 with --quick]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw latency over load: .svg, .png or .pdf"
    )


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Measure and print; returns 0."""
    from worker.bench.run import perform

    return perform(args, loaded, OPTIONS)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.5 <= seconds <= 600:
        raise argparse.ArgumentTypeError("0.5 to 600")
    return seconds
