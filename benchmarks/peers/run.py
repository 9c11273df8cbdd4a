"""Compares streamlabel with its peers on the same model, texts, broker and machine.

    python -m benchmarks.peers.run --rounds 3

Each peer is a folder with the exact versions of its packages and an `app.py` that follows its
documentation; the first lines of the file name the pages. The contenders take turns. Each drains
the same backlog with the same number of threads, and its output is checked (`turns.py`). A peer
that can't be installed, exits, times out or publishes other labels is reported with the reason.
Prints a table to stderr, writes peers.json into the results of this machine and updates the
documentation.

Owns: peers.json.
Thread: main.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import docs
from benchmarks.brokers import some_broker
from benchmarks.machines import here, provenance
from benchmarks.peers.contenders import LARGEST, Contender, contenders
from benchmarks.peers.environments import install, reason
from benchmarks.peers.turns import PeerRig, Scores
from benchmarks.random_model import random_model
from benchmarks.recorded import Peers
from worker.bench.machine import cores_at_work
from worker.bench.rig import as_toml
from worker.bench.texts import repeated
from worker.cli.main import DONE, FAILED, INTERRUPTED
from worker.cli.parser import USAGE_ERROR
from worker.clock import Clock, SystemClock
from worker.demo.posts import load_rated
from worker.errors import Fatal, SettingsError, StreamlabelError
from worker.limits import cores
from worker.processes import Interrupts
from worker.settings import Loaded, ModelSettings, load, read_environment

# Fewer records could be one or two micro-batches of streamlabel, too few for a rate.
_MIN_RECORDS: Final = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return 0, even if a peer failed: the table has the reason."""
    args = _parser().parse_args(arguments)
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    try:
        result = _compare(args)
    except StreamlabelError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, SettingsError) else FAILED
    except KeyboardInterrupt:
        print("benchmarks.peers: interrupted", file=sys.stderr)
        return INTERRUPTED
    _show(result)
    if args.only:  # the file holds complete results only
        return DONE
    (here() / "peers.json").write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return docs.main([])


def _parser() -> argparse.ArgumentParser:
    folders = sorted({contender.folder for contender in contenders() if contender.folder})
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--bootstrap-servers", help="a running Kafka [starts KAFKA_HOME]")
    parser.add_argument("--model", type=_folder, help="a checkpoint's folder [random DistilBERT]")
    parser.add_argument(
        "--records", type=_at_least(_MIN_RECORDS), default=600, help="records of each backlog [600]"
    )
    parser.add_argument("--rounds", type=_at_least(1), default=3, help="turns of each [3]")
    parser.add_argument(
        "--timeout", type=_at_least(1), default=240, help="maximum seconds for a turn [240]"
    )
    parser.add_argument(
        "--only", nargs="+", choices=folders, metavar="PEER", help=f"run only these of {', '.join(folders)}; "
        "writes no file"
    )  # fmt: skip
    return parser


def _compare(args: argparse.Namespace) -> Peers:
    _check_broker(args.bootstrap_servers)
    clock = SystemClock()
    cache_dir = ModelSettings().cache_dir.expanduser()
    texts = list(dict.fromkeys(post.text for post in load_rated("tweets", cache_dir)))
    chosen = [c for c in contenders() if not (c.folder and args.only) or c.folder in args.only]
    model = args.model or random_model(cache_dir)
    busy = cores_at_work(clock)
    with Interrupts(clock) as interrupts:
        for folder in dict.fromkeys(contender.folder for contender in chosen if contender.folder):
            _say(f"{folder}: preparing its environment")
            failure = install(folder, interrupts, clock)
            for contender in chosen:
                contender.failed = failure if contender.folder == folder else contender.failed
        with some_broker(args.bootstrap_servers) as broker:
            values = {"kafka.bootstrap_servers": broker.bootstrap_servers, "model.name": str(model)}
            loaded = load(values | {"model.threads": cores()}, environ={})
            texts = repeated(texts, round(args.records * LARGEST))
            _rounds(chosen, loaded, texts, args, interrupts, clock)
            return _results(chosen, model.name, args, broker.name, busy)


def _check_broker(bootstrap_servers: str | None) -> None:
    """Raise SettingsError if there is no broker; called before minutes of installing."""
    home = read_environment("KAFKA_HOME")
    if bootstrap_servers:
        return
    if not home:
        raise SettingsError("the peers need a Kafka: set KAFKA_HOME or --bootstrap-servers")
    if not Path(home, "bin", "kafka-server-start.sh").is_file():
        raise SettingsError(f"KAFKA_HOME={home} has no bin/kafka-server-start.sh")
    if shutil.which("java") is None:
        raise SettingsError("KAFKA_HOME is set, but java is not on PATH")


def _rounds(
    chosen: list[Contender],
    loaded: Loaded,
    texts: list[str],
    args: argparse.Namespace,
    interrupts: Interrupts,
    clock: Clock,
) -> None:
    """Run all turns. Raises Fatal if streamlabel fails, because it is the reference."""
    ours: Sequence[Scores] = ()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        config = folder / "settings.toml"
        config.write_text(as_toml(loaded, ("model.",)))
        for number in range(args.rounds):
            for contender in (item for item in chosen if not item.failed):
                rig = (loaded, config, folder, stack, interrupts, clock)
                peer = PeerRig(contender.folder, contender.flags, args.timeout, rig)
                try:
                    turn = peer.turn(texts[: round(args.records * contender.share)])
                    ours = ours or turn.scores
                    contender.take(turn, ours)
                except Fatal as error:
                    if not contender.folder:
                        raise
                    contender.failed = reason(str(error))
                    _say(f"{contender.name}: {error}")
                else:
                    _say(f"{number + 1}. {contender.name}: {turn.records_per_s:.1f} records/s")


def _results(
    chosen: list[Contender], model: str, args: argparse.Namespace, broker: str, busy: float
) -> Peers:
    return Peers(
        **provenance(),
        busy_cores=busy,
        torch=version("torch"),
        broker=broker if not args.bootstrap_servers else "Kafka",
        model=model,
        threads=cores(),
        records=args.records,
        rounds=args.rounds,
        peers=tuple(contender.row for contender in chosen),
    )


def _show(result: Peers) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "records/s", "speed of streamlabel", "probabilities differ by"):
        table.add_column(name, justify="right" if name else "left")
    for peer, ratio in result.ratios():
        rate = f"{peer.records_per_s:.1f}" if peer.records_per_s else "-"
        relative = f"{ratio:.2f} x" if ratio else peer.failed or ""
        differs = "" if peer.differs is None else f"{peer.differs:.0e}"
        table.add_row(peer.title, rate, relative, differs)
    Console(stderr=True, highlight=False).print(table)
    if result.disturbed:
        busy = f"{result.busy_cores:.1f} cores"
        _say(f"unreliable: other programs kept {busy} busy; measure again on an idle machine")


def _folder(text: str) -> Path:
    if not Path(text, "config.json").is_file():
        raise argparse.ArgumentTypeError(f"{text} has no config.json")
    return Path(text).resolve()


def _at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if (number := int(text)) < minimum:
            raise argparse.ArgumentTypeError(f"{number} is too small: give {minimum} or more")
        return number

    return parse


def _say(message: str) -> None:
    print(f"benchmarks.peers: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
