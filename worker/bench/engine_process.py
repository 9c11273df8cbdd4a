"""Runs `worker.bench.engine` in a process of its own, a round at a time.

Rounds of the engine and drains of a worker alternate, so that both see the same machine: the speed
of a shared one changes within minutes.

Owns: the process, its input and the file with its output.
Thread: main.
Must not import: kafka, torch (the process does).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from worker.bench.figures import EngineResult, ModelInfo
from worker.bench.pinning import Cores, running_on
from worker.errors import Fatal
from worker.processes import Interrupts, last_lines, spawn, stop
from worker.settings import child_environment

_GRACE_S: Final = 10.0
_POLL_S: Final = 0.05


class EngineRound(NamedTuple):
    """The engine in one round."""

    texts_per_s: float
    cpu_us_per_text: float


class EngineProcess:
    """The engine's bench; it loads the model while the caller goes on.

    Args:
        arguments: of `worker.bench.engine`.
        folder: for its output and log.
        cores: the cores to run on; None means all.
        stack: stops the process when it is unwound.
        interrupts: lets Ctrl-C end a wait.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        cores: Cores | None,
        stack: ExitStack,
        interrupts: Interrupts,
    ) -> None:
        self._interrupts = interrupts
        self._log, self._output = folder / "engine.log", folder / "engine.out"
        self._lines_read = 0
        command = [sys.executable, "-P", "-m", "worker.bench.engine", *arguments]
        with self._log.open("wb") as log, self._output.open("wb") as output, running_on(cores):
            environ = child_environment(TMPDIR=str(folder))
            self._process = spawn(command, output, environ, log, subprocess.PIPE)
        stack.callback(stop, self._process, _GRACE_S)
        stack.callback(self._close)
        interrupts.on_second(self._process.kill)

    def round(self) -> EngineRound:
        """Measure one round. Raises Fatal if the process fails."""
        try:
            self._input.write(b"\n")
            self._input.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return EngineRound(**self._answer())

    def result(self) -> tuple[ModelInfo, EngineResult]:
        """Return the medians of all rounds, and end the process. Raises Fatal if it fails."""
        self._close()
        answer = self._answer()
        self._process.wait()
        model = ModelInfo.model_validate(answer["model"])
        return model, EngineResult.model_validate(answer["engine"])

    def _close(self) -> None:
        with suppress(BrokenPipeError):  # it has failed, and the answer says so
            self._input.close()

    @property
    def _input(self) -> Any:
        return self._process.stdin

    def _answer(self) -> Any:
        """Wait for the next line of output and return its JSON."""
        while True:
            ended = self._process.poll() is not None
            lines = self._output.read_text(encoding="utf-8").splitlines(keepends=True)
            if len(lines) > self._lines_read and lines[self._lines_read].endswith("\n"):
                self._lines_read += 1
                return json.loads(lines[self._lines_read - 1])
            if ended:
                raise self._failure()
            self._interrupts.sleep(_POLL_S)

    def _failure(self) -> Fatal:
        code = self._process.wait()
        return Fatal(
            f"measuring the engine failed with code {code}; its log ends:\n{last_lines(self._log)}"
        )
