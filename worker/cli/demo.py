"""Watch a worker label thousands of real posts on this machine, with nothing to prepare.

Starts a small embedded broker and a real worker, sends posts with broken records among them, and
audits the topics. Set KAFKA_BOOTSTRAP_SERVERS to use a running broker instead; the demo creates
topics there and deletes them at the end. With --format avro the posts and the results are in Avro,
and a schema registry starts too, out of the unpacked one in REGISTRY_HOME. Exits 0 only if every
promise held and the dead letters are exactly the broken records.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from worker.demo.sample import DEFAULT_POSTS, PARTITIONS
from worker.errors import SettingsError
from worker.settings import Loaded

OPTIONS: tuple[str, ...] = ()
DEFAULT_RATE = 100.0  # about half of what two cores hold, so that latency has no backlog in it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's own flags; the demo sets the workers' settings itself."""
    parser.add_argument(
        "--posts", type=_count, metavar="N", help=f"posts to send [default: {DEFAULT_POSTS}]"
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        default=DEFAULT_RATE,
        metavar="R",
        help=f"records to send a second; 0 sends as fast as possible [default: {DEFAULT_RATE:g}]",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="W",
        help="worker processes in one group [default: 1]",
    )
    parser.add_argument(
        "--delivery",
        choices=("at_least_once", "exactly_once"),
        default="at_least_once",
        help="the workers' delivery guarantee [default: at_least_once]",
    )
    parser.add_argument(
        "--model",
        default="bundled",
        metavar="NAME",
        help="hub id, directory or bundled [default: bundled]",
    )
    parser.add_argument(
        "--format",
        choices=("json", "avro"),
        default="json",
        help="format of the posts and of the results [default: json]",
    )
    parser.add_argument(
        "--registry-url",
        metavar="URL",
        help="a running schema registry for --format avro; the demo deletes its subjects at the end "
        "[default: start the one in REGISTRY_HOME]",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the workers and their live page up until Ctrl-C"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the report as one JSON object to stdout, everything else to stderr",
    )
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help=argparse.SUPPRESS)


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Run the demo and return its exit code."""
    if args.registry_url and args.format == "json":
        raise SettingsError("--registry-url needs --format avro: JSON has no schema registry")
    from worker.demo.run import perform

    return perform(args, loaded.settings.model.cache_dir.expanduser())


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too small: give 1 or more")
    return number


def _workers(text: str) -> int:
    number = int(text)
    if not 1 <= number <= PARTITIONS:
        raise argparse.ArgumentTypeError(
            f"{number} is out of range: give 1 to {PARTITIONS}, one worker a partition at most"
        )
    return number


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is out of range: give 0 or a positive rate")
    return rate
