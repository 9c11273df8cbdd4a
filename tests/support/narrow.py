"""A worker with a scripted model and little memory: `-m tests.support.narrow BYTES SETTINGS`.

Settings are JSON, by path. It runs until SIGTERM, or exits with 1 and the fault as its last line.
"""

from __future__ import annotations

import json
import resource
import sys
import threading

from tests.support.workers import ObedientModel
from worker.clock import SystemClock
from worker.core.state import State
from worker.errors import StreamlabelError
from worker.logs import configure
from worker.metrics import Metrics
from worker.runtime.context import WorkerContext
from worker.runtime.launch import Launcher
from worker.runtime.progress import Progress
from worker.settings import load
from worker.signals import stop_on_signals


def main(limit: int, chosen: dict[str, object]) -> int:
    """Run the worker and return the exit code."""
    settings, clock, metrics = load(chosen, environ={}).settings, SystemClock(), Metrics()
    configure("info", "json")
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    threading.stack_size(1 << 20)
    stop = threading.Event()
    stop_on_signals(stop)
    progress = Progress(settings.stall_timeout, metrics, clock)
    progress.move(State.WARMING)
    model = ObedientModel()
    try:
        Launcher(settings, WorkerContext(metrics, progress, clock, stop)).run(model, model)
    except StreamlabelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), json.loads(sys.argv[2])))
