"""Runs `streamlabel bench` on the reference architecture and prints the goals beside the figures.

    python -m benchmarks.bench --quick

All flags are passed to `streamlabel bench`. Writes benchmarks/results/bench.json, prints every goal
with its figure, also from the other result files, and updates the documentation. The broker is
Apache Kafka if KAFKA_HOME is set.

Owns: bench.json.
Thread: main.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks import readme
from benchmarks.brokers import some_broker
from benchmarks.goals import captions, measured, rows
from benchmarks.random_model import random_model
from benchmarks.recorded import RESULTS
from worker.settings import ModelSettings, read_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and return its exit code."""
    flags = list(sys.argv[1:] if arguments is None else arguments)
    if not _has("--model", flags):
        flags += ["--model", str(random_model(ModelSettings().cache_dir.expanduser()))]
    RESULTS.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-m", "worker", "bench", *flags]
    command += ["--json", str(RESULTS / "bench.json")]
    with contextlib.ExitStack() as stack:
        # Without KAFKA_HOME the bench starts the embedded broker itself.
        if read_environment("KAFKA_HOME") and not _has("--bootstrap-servers", flags):
            broker = stack.enter_context(some_broker())
            command += ["--bootstrap-servers", broker.bootstrap_servers]
        code = subprocess.run(command, check=False).returncode
    if code:
        return code
    results = measured()
    table = Table(box=None, pad_edge=False, caption="\n".join(captions(results)))
    for name in ("measurement", "goal", "figure", "verdict"):
        table.add_column(name)
    for row in rows(results):
        table.add_row(*row)
    Console(highlight=False).print(table)
    return readme.main([])


def _has(flag: str, flags: Sequence[str]) -> bool:
    return any(argument.split("=")[0] == flag for argument in flags)


if __name__ == "__main__":
    sys.exit(main())
