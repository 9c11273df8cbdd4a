"""The demo's workers: real `streamlabel run` processes, as in production.

Owns: their command lines, ports, logs and ends. Runs on: the demo's main thread.
Must not import: kafka, torch.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.clock import Clock
from worker.errors import Fatal
from worker.processes import Interrupts, finish, last_lines, spawn, terminate
from worker.settings import child_environment

_READY_TIMEOUT_S: Final = 300.0  # loading torch takes a slow machine its time
_ANSWER_TIMEOUT_S: Final = 2.0
_STOP_TIMEOUT_S: Final = 40.0  # more than the workers' own `shutdown_timeout`
_LOADING_STOP_TIMEOUT_S: Final = 2.0  # one that is still loading has nothing to drain


@dataclass
class _Worker:
    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]
    ready: bool = False


class DemoWorkers:
    """As many workers of one group as wanted.

    Args:
        command: how to start one, without its own port.
        folder: for their logs.
        interrupts: lets Ctrl-C end the waits here.
        clock: paces the waits.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, interrupts: Interrupts, clock: Clock
    ) -> None:
        self._command = command
        self._folder = folder
        self._interrupts = interrupts
        self._clock = clock
        self._all: list[_Worker] = []

    @property
    def urls(self) -> list[str]:
        """Where each worker shows its metrics and health."""
        return [f"http://127.0.0.1:{worker.port}" for worker in self._all]

    def start(self, number: int) -> None:
        """Start all; they load their models side by side."""
        for index in range(number):
            name = f"worker {index + 1}" if number > 1 else "the worker"
            port, log = _free_port(), self._folder / f"worker-{index + 1}.log"
            command = [sys.executable, *self._command, "--http-port", str(port)]
            with log.open("wb") as output:
                process = spawn(command, output, child_environment(TMPDIR=str(self._folder)))
            self._interrupts.on_second(process.kill)
            self._all.append(_Worker(name, port, log, process))

    def wait_until_ready(self) -> None:
        """Return when each answers that it takes records. Raises Fatal where one does not."""
        deadline = self._clock.monotonic() + _READY_TIMEOUT_S
        while not all(self._is_ready(worker) for worker in self._all):
            self.check()
            if self._clock.monotonic() > deadline:
                slow = next(worker for worker in self._all if not worker.ready)
                raise Fatal(f"{slow.name} is not ready; its log ends:\n{last_lines(slow.log)}")
            self._interrupts.sleep(0.1)

    def check(self) -> None:
        """Raise Fatal, with the end of its log, where a worker has ended by itself."""
        for worker in self._all:
            code = worker.process.poll()
            if code is not None:
                raise Fatal(f"{worker.name} ended with {code}; its log:\n{last_lines(worker.log)}")

    def metric(self, name: str) -> list[float | None]:
        """Each worker's value of a metric without labels; None where its /metrics has none."""
        line = re.compile(rf"^{name} (\S+)$", re.MULTILINE)
        found = (line.search(_get(worker.port, "/metrics")[1]) for worker in self._all)
        return [float(told[1]) if told else None for told in found]

    def logs(self) -> str:
        """The end of each log."""
        return "\n".join(f"{w.name}'s log ends:\n{last_lines(w.log)}" for w in self._all)

    def stop(self) -> None:
        """Ask all to drain and leave the group. Raises Fatal where one does not end with 0."""
        self.end()
        for worker in self._all:
            code = worker.process.returncode
            if code:
                log = last_lines(worker.log)
                raise Fatal(f"{worker.name} was told to stop and ended with {code}:\n{log}")
        self._all.clear()

    def end(self) -> None:
        """End all, kindly at first; calling it again does nothing."""
        for worker in self._all:
            terminate(worker.process)
        begun = self._clock.monotonic()
        for worker in self._all:
            grace = _STOP_TIMEOUT_S if worker.ready else _LOADING_STOP_TIMEOUT_S
            finish(worker.process, max(0.0, begun + grace - self._clock.monotonic()))

    def _is_ready(self, worker: _Worker) -> bool:
        worker.ready = worker.ready or _answers_ready(worker.port)
        return worker.ready


def run_command(flags: dict[str, str]) -> list[str]:
    """`python -m worker run` with these flags; no `worker/` of the current folder runs instead."""
    return ["-P", "-m", "worker", "run", *(part for pair in flags.items() for part in pair)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


def _answers_ready(port: int) -> bool:
    try:
        return _get(port, "/readyz")[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _get(port: int, path: str) -> tuple[int, str]:
    # Not urllib: a proxy in the environment is not meant for this machine.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
