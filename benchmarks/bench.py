"""Runs `streamlabel bench` on the reference architecture and prints the goals beside the figures.

    python -m benchmarks.bench --quick
    python -m benchmarks.bench --model-dtype int8

All flags are passed to `streamlabel bench`. Writes bench.json into the folder of this machine in
benchmarks/results, or bench-NAME.json for another model, number type or use of the cores; prints
every goal with its figure on this machine and updates the documentation. With --quick, it writes
nothing. The broker is Apache Kafka if KAFKA_HOME is set.

Owns: bench.json and bench-NAME.json.
Thread: main.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import docs
from benchmarks.brokers import some_broker
from benchmarks.docs.performance import captions
from benchmarks.goals import CPU_GOALS, rows
from benchmarks.machines import Machine, commit, here
from benchmarks.random_model import random_model
from benchmarks.recorded import RESULTS
from worker.bench.figures import BenchResult, read
from worker.settings import ModelSettings, read_environment

# A bench without these flags is the machine's reference, bench.json.
_OTHERS: Final = ("--model", "--model-dtype", "--client-cores")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and return its exit code."""
    flags = list(sys.argv[1:] if arguments is None else arguments)
    reference = not any(_has(flag, flags) for flag in _OTHERS)
    if not _has("--model", flags):
        flags += ["--model", str(random_model(ModelSettings().cache_dir.expanduser()))]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        figures = scratch / "bench.json"
        command = [sys.executable, "-P", "-m", "worker", "bench", *flags, "--json", str(figures)]
        # Without KAFKA_HOME the bench starts the embedded broker itself.
        if read_environment("KAFKA_HOME") and not _has("--bootstrap-servers", flags):
            broker = stack.enter_context(some_broker())
            command += ["--bootstrap-servers", broker.bootstrap_servers]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
        bench = read(figures).model_copy(update={"commit": commit()})
        folder = here(scratch if bench.quick else RESULTS)
        path = folder / ("bench.json" if reference else file_name(bench))
        path.write_text(bench.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _show(Machine(folder))
    return 0 if bench.quick else docs.main([])


def file_name(bench: BenchResult) -> str:
    """Return the file of a bench that is not the machine's reference."""
    own = "own-cores" if bench.end_to_end.client_cores else ""
    words = f"bench {bench.model.name} {bench.model.dtype} {own}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") + ".json"


def _show(machine: Machine) -> None:
    table = Table(
        box=None, pad_edge=False, caption="\n\n".join(captions([machine])), caption_justify="left"
    )
    for name in ("measurement", "goal", "figure, verdict"):
        table.add_column(name)
    for row in rows(CPU_GOALS, [machine]):
        table.add_row(*row)
    Console(highlight=False).print(table)


def _has(flag: str, flags: Sequence[str]) -> bool:
    return any(argument.split("=")[0] == flag for argument in flags)


if __name__ == "__main__":
    sys.exit(main())
