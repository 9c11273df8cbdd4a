"""`make bench`: `streamlabel bench` on the reference's architecture, then the goals beside it.

Writes benchmarks/results/bench.json, prints every goal with the figure measured for it (those of
`make bench-peers` and `make bench-scale` where their files are there), and writes the README's
performance section. Flags of its own there are none: all are `streamlabel bench`'s. The broker is Apache Kafka
where KAFKA_HOME is set.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks import docs
from benchmarks.brokers import some_broker
from benchmarks.goals import captions, measured, rows
from benchmarks.random_model import random_model
from benchmarks.recorded import RESULTS
from worker.settings import ModelSettings, read_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """The bench's exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not any(word.split("=")[0] == "--model" for word in given):
        given += ["--model", str(random_model(ModelSettings().cache_dir.expanduser()))]
    RESULTS.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-m", "worker", "bench", *given]
    command += ["--json", str(RESULTS / "bench.json")]
    with contextlib.ExitStack() as stack:
        given_one = any(word.split("=")[0] == "--bootstrap-servers" for word in given)
        if read_environment("KAFKA_HOME") and not given_one:  # else the bench runs the embedded one
            broker = stack.enter_context(some_broker())
            command += ["--bootstrap-servers", broker.bootstrap_servers]
        code = subprocess.run(command, check=False).returncode
    if code:
        return code
    found = measured()
    table = Table(box=None, pad_edge=False, caption="\n".join(captions(found)))
    for name in ("what", "goal", "measured", ""):
        table.add_column(name)
    for row in rows(found):
        table.add_row(*row)
    Console(highlight=False).print(table)
    return docs.main([])


if __name__ == "__main__":
    sys.exit(main())
