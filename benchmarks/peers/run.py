"""`make bench-peers`: the same model, texts, broker and machine for streamlabel and for its peers.

Each peer is a folder here: `app.py`, written as its documentation recommends (its first lines say
where), and the exact versions it runs on. The contenders take turns, each drains the same backlog
with as many threads, and what it published is checked (`turns.py`). A peer that can't be
installed, ends, takes too long or labels otherwise is reported with the reason. Prints a table
(standard error) and writes benchmarks/results/peers.json and the README's performance section.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import docs
from benchmarks.brokers import some_broker
from benchmarks.peers.environments import install, pins, reason
from benchmarks.peers.turns import PeerRig, Scores, Turn, farthest
from benchmarks.random_model import random_model
from benchmarks.recorded import RESULTS, Peer, Peers
from worker.bench.machine import cores_at_work, processor
from worker.bench.rig import as_toml
from worker.bench.texts import repeated
from worker.cli.main import DONE, FAILED, INTERRUPTED, USAGE
from worker.clock import Clock, SystemClock
from worker.demo.posts import load_rated
from worker.errors import Fatal, SettingsError, StreamlabelError
from worker.pool.shares import cores
from worker.processes import Interrupts
from worker.settings import Loaded, ModelSettings, load, read_environment

# The same model in another number type differs by less (the README's bound for bfloat16).
_SAME_MODEL: Final = 0.03
# Of these, a micro-batch of streamlabel's is no more than the first outcome and the last.
_FEWEST: Final = 200


@dataclass
class Contender:
    """One row of the table. `folder` None is streamlabel itself."""

    name: str
    folder: str | None = None
    flags: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    rates: list[float] = field(default_factory=list)
    differs: float | None = None
    failed: str | None = None

    def take(self, turn: Turn, ours: Sequence[Scores]) -> None:
        """Note what a turn showed. Raises Fatal where it was not the model that we ran."""
        self.rates.append(turn.records_per_s)
        self.differs = max(farthest(ours, turn.scores), self.differs or 0.0)
        if self.differs > _SAME_MODEL:
            raise Fatal(f"its probabilities differ by up to {self.differs:.2f}: another model?")

    @property
    def row(self) -> Peer:
        median = statistics.median(self.rates) if self.rates and not self.failed else None
        locked = pins(self.folder) if self.folder else {}
        return Peer(
            name=self.name,
            versions=", ".join(f"{package} {locked[package]}" for package in self.packages),
            records_per_s=median,
            rates=tuple(self.rates),
            differs=self.differs,
            failed=self.failed,
        )


def contenders() -> list[Contender]:
    """Ours comes first: the others' ratios and probabilities are held against it."""
    plain, batch = ("kafka-python", "transformers"), ("--batch", "32")
    return [
        Contender("streamlabel"),
        Contender("kafka-python + `pipeline()`, text by text", "plain", (), plain),
        Contender("kafka-python + `pipeline()`, batches of 32", "plain", batch, plain),
        Contender(
            "Quix Streams + `pipeline()`", "quixstreams", (), ("quixstreams", "transformers")
        ),
        Contender(
            "FastStream + `pipeline()`, batches of 32",
            "faststream",
            (),
            ("faststream", "transformers"),
        ),
        Contender(
            "MLServer, adaptive batches of up to 32",
            "mlserver",
            (),
            ("mlserver-huggingface", "transformers"),
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """0, also where a peer could not be run: the table says so."""
    args = _parser().parse_args(arguments)
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    try:
        found = _found(args)
    except StreamlabelError as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return USAGE if isinstance(error, SettingsError) else FAILED
    except KeyboardInterrupt:
        print("bench-peers: interrupted", file=sys.stderr)
        return INTERRUPTED
    _show(found)
    if args.only:  # half a table would stand in the README as if it were whole
        return DONE
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.json").write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return docs.main([])


def _parser() -> argparse.ArgumentParser:
    folders = sorted({one.folder for one in contenders() if one.folder})
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__)
    parser.add_argument("--bootstrap-servers", help="a Kafka; else the one at KAFKA_HOME is run")
    parser.add_argument("--model", type=_folder, help="a checkpoint's folder [random DistilBERT]")
    parser.add_argument(
        "--records", type=_at_least(_FEWEST), default=600, help="of each backlog [600]"
    )
    parser.add_argument("--rounds", type=_at_least(1), default=3, help="turns of each [3]")
    parser.add_argument(
        "--timeout", type=_at_least(1), default=240, help="seconds of one turn at most [240]"
    )
    parser.add_argument(
        "--only", nargs="+", choices=folders, metavar="PEER", help=f"of {', '.join(folders)}; "
        "writes no file"
    )  # fmt: skip
    return parser


def _found(args: argparse.Namespace) -> Peers:
    _check_broker(args.bootstrap_servers)
    clock = SystemClock()
    cache_dir = ModelSettings().cache_dir.expanduser()
    texts = list(dict.fromkeys(post.text for post in load_rated("tweets", cache_dir)))
    chosen = [c for c in contenders() if not (c.folder and args.only) or c.folder in args.only]
    model = args.model or random_model(cache_dir)
    busy = cores_at_work(clock)
    with Interrupts(clock) as interrupts:
        for folder in dict.fromkeys(contender.folder for contender in chosen if contender.folder):
            _say(f"{folder}: its environment, made once")
            why = install(folder, interrupts, clock)
            for contender in chosen:
                contender.failed = why if contender.folder == folder else contender.failed
        with some_broker(args.bootstrap_servers) as broker:
            given = {"kafka.bootstrap_servers": broker.bootstrap_servers, "model.name": str(model)}
            loaded = load(given | {"model.threads": cores()}, environ={})
            _rounds(chosen, loaded, repeated(texts, args.records), args, interrupts, clock)
            return _results(chosen, model.name, args, broker.name, busy)


def _check_broker(given: str | None) -> None:
    """Raises SettingsError, before minutes of installing."""
    home = read_environment("KAFKA_HOME")
    if not given and not home:
        raise SettingsError("the peers need a Kafka: set KAFKA_HOME or --bootstrap-servers")
    if not given and home and not Path(home, "bin", "kafka-server-start.sh").is_file():
        raise SettingsError(f"KAFKA_HOME={home} holds no bin/kafka-server-start.sh")
    if not given and shutil.which("java") is None:
        raise SettingsError("KAFKA_HOME is set, but there is no java on PATH")


def _rounds(
    chosen: list[Contender],
    loaded: Loaded,
    texts: list[str],
    args: argparse.Namespace,
    interrupts: Interrupts,
    clock: Clock,
) -> None:
    """Turn by turn. Raises Fatal where streamlabel itself fails: nothing could be compared."""
    ours: Sequence[Scores] = ()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        config = folder / "settings.toml"
        config.write_text(as_toml(loaded, ("model.",)))
        for number in range(args.rounds):
            for contender in (one for one in chosen if not one.failed):
                rig = (loaded, config, folder, stack, interrupts, clock)
                peer = PeerRig(contender.folder, contender.flags, args.timeout, rig)
                try:
                    turn = peer.turn(texts)
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
    cpu, features = processor()
    return Peers(
        cpu=cpu,
        cores=cores(),
        features=features,
        busy_cores=busy,
        torch=version("torch"),
        broker=broker if not args.bootstrap_servers else "a given Kafka",
        model=model,
        threads=cores(),
        records=args.records,
        rounds=args.rounds,
        peers=tuple(contender.row for contender in chosen),
    )


def _show(found: Peers) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "records/s", "streamlabel is", "differs by"):
        table.add_column(name, justify="right" if name else "left")
    for peer, ratio in found.ratios():
        rate = f"{peer.records_per_s:.1f}" if peer.records_per_s else "-"
        times = f"{ratio:.2f} x" if ratio else peer.failed or ""
        differs = "" if peer.differs is None else f"{peer.differs:.0e}"
        table.add_row(peer.title, rate, times, differs)
    Console(stderr=True, highlight=False).print(table)
    if found.disturbed:
        busy = f"{found.busy_cores:.1f} cores busy"
        _say(f"the machine had other work ({busy}): measure again when it is idle")


def _folder(text: str) -> Path:
    if not Path(text, "config.json").is_file():
        raise argparse.ArgumentTypeError(f"{text} holds no config.json")
    return Path(text).resolve()


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (found := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{least} or more")
        return found

    return number


def _say(what: str) -> None:
    print(f"bench-peers: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
