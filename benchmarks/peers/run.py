"""`make bench-peers`: the same model, texts, broker and machine for streamlabel and for its peers.

Each peer is a folder here: `app.py`, written as its documentation recommends, and the exact
versions it runs on. It gets an environment of its own; one that can't be made, or that does not
get through a backlog, is reported with the reason. The contenders take turns; each drains a
backlog, and its rate counts from the first outcome that a reader sees to the last. Prints a table
(standard error) and writes benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.brokers import some_broker
from benchmarks.random_model import random_model
from worker.cli.bench_rig import Rig, as_toml
from worker.clock import SystemClock
from worker.errors import Fatal, SettingsError, StreamlabelError
from worker.local.bench_machine import cores, processor
from worker.local.bench_results import RESULTS, Peer, Peers
from worker.local.bench_texts import repeated
from worker.local.posts import load_rated
from worker.local.processes import Interrupts, last_lines, spawn, stop
from worker.settings import Loaded, ModelSettings, child_environment, load

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = HERE.parents[1] / ".cache" / "peers"
_GRACE_S: Final = 20.0
# So many times the peers' backlog, for its rate not to be that of its first second.
_OURS: Final = 8


@dataclass
class _Contender:
    """One row of the table. `folder` None is streamlabel itself."""

    name: str
    folder: str | None = None
    flags: tuple[str, ...] = ()
    rates: list[float] = field(default_factory=list)
    failed: str | None = None

    @property
    def row(self) -> Peer:
        median = statistics.median(self.rates) if self.rates and not self.failed else None
        return Peer(
            name=self.name, records_per_s=median, rates=tuple(self.rates), failed=self.failed
        )


def contenders() -> list[_Contender]:
    """Ours comes first: the others' ratios are to it."""
    return [
        _Contender("streamlabel"),
        _Contender("kafka-python + pipeline(), 1 text", "plain"),
        _Contender("kafka-python + pipeline(), batches of 32", "plain", ("--batch", "32")),
        _Contender("Quix Streams + pipeline()", "quixstreams"),
        _Contender("FastStream + pipeline(), batches of 32", "faststream"),
        _Contender("MLServer, adaptive batching up to 32", "mlserver"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """0, also where a peer could not be run: the table says so."""
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__)
    parser.add_argument("--bootstrap-servers", help="a Kafka; else KAFKA_HOME is run")
    parser.add_argument("--model", type=Path, help="a checkpoint's folder [random DistilBERT]")
    parser.add_argument("--records", type=int, default=600, help="of each backlog [600]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="folders of peers, comma-separated [all]")
    args = parser.parse_args(arguments)
    cache_dir = ModelSettings().cache_dir.expanduser()
    model = args.model or random_model(cache_dir)
    texts = [post.text for post in load_rated("tweets", cache_dir)]
    chosen = [c for c in contenders() if not c.folder or c.folder in (args.only or c.folder)]
    for contender in chosen:
        contender.failed = _install(contender.folder) if contender.folder else None
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    try:
        with some_broker(args.bootstrap_servers) as broker:
            if broker.kind == "embedded":
                raise SettingsError("the peers need a Kafka: set KAFKA_HOME or --bootstrap-servers")
            _rounds(
                chosen, broker.bootstrap_servers, model, repeated(texts, args.records), args.rounds
            )
    except StreamlabelError as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    found = _found(chosen, model.name, args)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.json").write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _show(found)
    return 0


def _install(folder: str) -> str | None:
    """Make the peer's environment unless it is there; returns why that failed."""
    requirements = HERE / folder / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    home = ENVIRONMENTS / folder
    mark = home / "installed"
    if mark.is_file() and mark.read_text() == wanted:
        return None
    _say(f"installing {folder} (once)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--quiet", "-r", str(requirements)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return f"would not install: {lines[-1] if lines else 'pip said nothing'}"
    mark.write_text(wanted)
    return None


def _rounds(
    chosen: list[_Contender], servers: str, model: Path, texts: list[str], rounds: int
) -> None:
    clock = SystemClock()
    loaded = load({"kafka.bootstrap_servers": servers, "model.name": str(model)}, environ={})
    with Interrupts(clock) as interrupts, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        config = folder / "settings.toml"
        config.write_text(as_toml(loaded, ("model.",)))
        for number in range(rounds):
            for contender in (one for one in chosen if not one.failed):
                rig = _PeerRig(contender, model, (loaded, config, folder, stack, interrupts, clock))
                backlog = texts if contender.folder else texts * _OURS
                try:
                    with rig.line(backlog) as line:
                        contender.rates.append(line.drained_at(len(backlog)))
                except Fatal as error:
                    contender.failed = str(error).splitlines()[-1].strip()
                    _say(f"{contender.name}: {error}")
                else:
                    _say(f"{number + 1}. {contender.name}: {contender.rates[-1]:.1f} records/s")


class _PeerRig(Rig):
    """A rig whose worker may be somebody else's."""

    def __init__(
        self,
        contender: _Contender,
        model: Path,
        rig: tuple[Loaded, Path, Path, ExitStack, Interrupts, SystemClock],
    ) -> None:
        super().__init__(*rig)
        self._contender, self._model = contender, model

    def workers(self, group: str, names: dict[str, str], folder: Path) -> Any:
        """Ours, or a peer that acts as `Workers` does."""
        if self._contender.folder is None:
            return super().workers(group, names, folder)
        flags = {
            "--bootstrap-servers": self.kafka.bootstrap_servers,
            "--input": names["in"],
            "--output": names["labelled"],
            "--group": group,
            "--model": str(self._model),
        }
        python = ENVIRONMENTS / self._contender.folder / "bin" / "python"
        words = [word for pair in flags.items() for word in pair]
        app = HERE / self._contender.folder / "app.py"
        return _PeerProcess([str(python), str(app), *words, *self._contender.flags], folder)


class _PeerProcess:
    """What a line asks of its workers, for a process that knows no more than to run."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command, self._log = command, folder / "peer.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, _number: int) -> None:
        environ = child_environment(
            PYTHONPATH="", PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1", TMPDIR=str(self._log.parent)
        )
        with self._log.open("wb") as output:
            self._process = spawn(self._command, output, environ)

    def wait_until_ready(self) -> None:
        """Its outcomes have been read: it was."""

    def check(self) -> None:
        if self._process and (code := self._process.poll()) is not None:
            raise Fatal(f"it ended with {code}:\n{last_lines(self._log)}")

    def stop(self) -> None:
        self.end()

    def end(self) -> None:
        if self._process:
            stop(self._process, _GRACE_S)


def _found(chosen: list[_Contender], model: str, args: argparse.Namespace) -> Peers:
    cpu, features = processor()
    return Peers(
        cpu=cpu,
        cores=cores(),
        features=features,
        model=model,
        records=args.records,
        rounds=args.rounds,
        peers=tuple(contender.row for contender in chosen),
    )


def _show(found: Peers) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "records/s", "streamlabel is"):
        table.add_column(name, justify="left" if not name else "right")
    for peer, ratio in found.ratios():
        rate = f"{peer.records_per_s:.1f}" if peer.records_per_s else "-"
        table.add_row(peer.name, rate, f"{ratio:.2f} x" if ratio else peer.failed or "")
    Console(stderr=True, highlight=False).print(table)


def _say(what: str) -> None:
    print(f"bench-peers: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
