"""Watch thousands of real posts being labelled, on this machine, with nothing prepared.

Starts a small embedded broker (or takes the one at KAFKA_BOOTSTRAP_SERVERS, with topics of its
own that it deletes again), the real worker, and a stream of posts with broken records among them;
then audits the topics. Exits 0 only where every promise held and the dead letters are exactly the
broken records.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from worker.demo.sample import PARTITIONS
from worker.settings import Loaded

OPTIONS: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demo's own flags; the workers get their settings from it."""
    parser.add_argument(
        "--posts", type=_count, metavar="N", help="posts to send [all of the sample: 4200]"
    )
    parser.add_argument(
        "--rate", type=_rate, default=0.0, metavar="R", help="records a second [as fast as they go]"
    )
    parser.add_argument(
        "--workers", type=_workers, default=1, metavar="W", help="worker processes in one group [1]"
    )
    parser.add_argument(
        "--delivery",
        choices=("at_least_once", "exactly_once"),
        default="at_least_once",
        help="what the workers promise [at_least_once]",
    )
    parser.add_argument(
        "--model", default="bundled", metavar="NAME", help="hub id, directory or bundled [bundled]"
    )
    parser.add_argument(
        "--keep", action="store_true", help="stay up, with the live page, until Ctrl-C"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the summary as one JSON object on standard output, the rest on standard error",
    )
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help=argparse.SUPPRESS)


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Run the demo and return its exit code."""
    from worker.demo.run import perform

    return perform(args, loaded.settings.model.cache_dir.expanduser())


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _workers(text: str) -> int:
    number = int(text)
    if not 1 <= number <= PARTITIONS:
        raise argparse.ArgumentTypeError(f"1 to {PARTITIONS}, the partitions of the input topic")
    return number


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate < float("inf"):
        raise argparse.ArgumentTypeError("0 or more")
    return rate
