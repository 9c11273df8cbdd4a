"""The demo's workers: real `streamlabel run` processes, as in production.

Owns: their command lines, ports, logs and shutdown.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.clock import Clock
from worker.errors import Fatal
from worker.processes import Interrupts, finish, last_lines, spawn, terminate
from worker.settings import child_environment

_READY_TIMEOUT_S: Final = 300.0  # loading torch is slow on a slow machine
_ANSWER_TIMEOUT_S: Final = 2.0
_STOP_TIMEOUT_S: Final = 40.0  # longer than the workers' own `shutdown_timeout`
_LOADING_STOP_TIMEOUT_S: Final = 2.0  # a worker that is still loading has nothing to drain


@dataclass
class _DemoWorker:
    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]
    ready: bool = False


class DemoWorkers:
    """Worker processes of one consumer group.

    Args:
        command: Python's arguments for one worker, without its port.
        folder: for their logs.
        interrupts: lets Ctrl-C end a wait.
        clock: paces the waits.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, interrupts: Interrupts, clock: Clock
    ) -> None:
        self._command = command
        self._folder = folder
        self._interrupts = interrupts
        self._clock = clock
        self._workers: list[_DemoWorker] = []

    @property
    def urls(self) -> list[str]:
        """Base URL of each worker's metrics, health and live page."""
        return [f"http://127.0.0.1:{worker.port}" for worker in self._workers]

    @property
    def pids(self) -> list[int]:
        """Id of each worker's process."""
        return [worker.process.pid for worker in self._workers]

    def start(self, number: int) -> None:
        """Start `number` workers; they load their models concurrently."""
        for index in range(number):
            name = f"worker {index + 1}" if number > 1 else "the worker"
            port, log = _free_port(), self._folder / f"worker-{index + 1}.log"
            command = [sys.executable, *self._command, "--http-port", str(port)]
            with log.open("wb") as output:
                process = spawn(command, output, child_environment(TMPDIR=str(self._folder)))
            self._interrupts.on_second(process.kill)
            self._workers.append(_DemoWorker(name, port, log, process))

    def wait_until_ready(self, progress: Callable[[float], None] = lambda _: None) -> None:
        """Wait until every worker reports that it is ready. Raises Fatal if one does not.

        Args:
            progress: called with the seconds waited so far, about ten times a second.
        """
        started = self._clock.monotonic()
        while not all(self._is_ready(worker) for worker in self._workers):
            self.check()
            waited = self._clock.monotonic() - started
            if waited > _READY_TIMEOUT_S:
                slow = next(worker for worker in self._workers if not worker.ready)
                raise Fatal(
                    f"{slow.name} is not ready after {_READY_TIMEOUT_S:.0f} s; its log ends:\n"
                    f"{last_lines(slow.log)}"
                )
            progress(waited)
            self._interrupts.sleep(0.1)

    def check(self) -> None:
        """Raise Fatal, with the end of its log, if a worker has exited."""
        for worker in self._workers:
            code = worker.process.poll()
            if code is not None:
                raise Fatal(
                    f"{worker.name} exited with code {code}; its log ends:\n"
                    f"{last_lines(worker.log)}"
                )

    def metric(self, name: str) -> list[float | None]:
        """Return each worker's value of a metric without labels, or None if it lacks the metric."""
        line = re.compile(rf"^{name} (\S+)$", re.MULTILINE)
        matches = (line.search(_get(worker.port, "/metrics")[1]) for worker in self._workers)
        return [float(match[1]) if match else None for match in matches]

    def logs(self) -> str:
        """Return the end of each log."""
        return "\n".join(f"{w.name}'s log ends:\n{last_lines(w.log)}" for w in self._workers)

    def stop(self) -> None:
        """Drain and stop every worker. Raises Fatal if an exit code is not 0."""
        self.end()
        for worker in self._workers:
            code = worker.process.returncode
            if code:
                raise Fatal(
                    f"{worker.name} exited with code {code} when asked to stop; its log ends:\n"
                    f"{last_lines(worker.log)}"
                )
        self._workers.clear()

    def end(self) -> None:
        """Terminate every worker, and kill those that outlast the timeout; idempotent."""
        for worker in self._workers:
            terminate(worker.process)
        started = self._clock.monotonic()
        for worker in self._workers:
            grace = _STOP_TIMEOUT_S if worker.ready else _LOADING_STOP_TIMEOUT_S
            finish(worker.process, max(0.0, started + grace - self._clock.monotonic()))

    def _is_ready(self, worker: _DemoWorker) -> bool:
        worker.ready = worker.ready or _answers_ready(worker.port)
        return worker.ready


def run_command(flags: dict[str, str]) -> list[str]:
    """Return Python's arguments for `streamlabel run` with these flags.

    `-P` keeps a `worker/` of the current folder from being imported instead.
    """
    return ["-P", "-m", "worker", "run", *(part for pair in flags.items() for part in pair)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers_ready(port: int) -> bool:
    try:
        return _get(port, "/readyz")[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _get(port: int, path: str) -> tuple[int, str]:
    # Not urllib, which would use a proxy of the environment even for this machine.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
