"""A schema registry of the demo's own, out of an unpacked one that REGISTRY_HOME names.

A folder with a program `start` is an unpacked registry. The demo calls `start --data FOLDER
--address-file FILE`. The program runs a registry on 127.0.0.1, writes its URL to FILE once it
answers, and ends with it at SIGTERM.

Owns: one registry process and its data.
Thread: the one that enters the context.
Must not import: kafka, torch, any other package of worker but the ground floor.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from worker.clock import Clock
from worker.errors import Fatal
from worker.processes import last_lines, spawn, stop
from worker.settings import child_environment

_START_TIMEOUT_S: Final = 100.0
_STOP_TIMEOUT_S: Final = 60.0
# The quick compiler alone: the other one does not pay off in the minutes that a registry lives.
_JAVA: Final = "-XX:TieredStopAtLevel=1"


class LocalRegistry:
    """A registry that starts on entering the context, and ends with it.

    Args:
        home: the folder of its program `start`.
        clock: measures how long the start takes.
        options: more arguments of the program.

    Attributes:
        process: the program, while the context lasts.
        data: the folder of its schemas.

    Raises Fatal on entering if there is no such program, or no Java to run it.
    """

    def __init__(self, home: Path, clock: Clock, options: Sequence[str] = ()) -> None:
        self._program = home.expanduser().resolve() / "start"
        self._clock, self._options = clock, options
        self._stack = ExitStack()
        self._folder = self.data = Path()
        self._deadline = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self._program.is_file():
            raise Fatal(f"REGISTRY_HOME names no schema registry: there is no {self._program}")
        if shutil.which("java") is None:
            raise Fatal(f"{self._program} needs Java 17 or newer, and there is no java on PATH")
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(
                prefix="streamlabel-registry-", ignore_cleanup_errors=True
            )
            self._folder = Path(stack.enter_context(folder))
            self.data = self._folder / "data"
            options = ["--data", str(self.data), "--address-file", str(self._address)]
            environ = child_environment(JAVA_TOOL_OPTIONS=_JAVA)
            with self._log.open("wb") as output:
                command = (str(self._program), *options, *self._options)
                self.process = spawn(command, output, environ)
            stack.callback(stop, self.process, _STOP_TIMEOUT_S)
            self._deadline = self._clock.monotonic() + _START_TIMEOUT_S
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str | None:
        """Its URL, or None while it does not answer yet. Raises Fatal if it never will."""
        code = self.process.poll() if self.process else None
        if code is not None:
            raise Fatal(
                f"the schema registry exited with code {code}; its log ends:\n"
                f"{last_lines(self._log)}"
            )
        if self._address.is_file():
            return self._address.read_text(encoding="utf-8").strip()
        if self._clock.monotonic() > self._deadline:
            raise Fatal(
                f"the schema registry did not start within {_START_TIMEOUT_S:.0f} s; its log ends:\n"
                f"{last_lines(self._log)}"
            )
        return None

    def kill(self) -> None:
        """Kill the registry without waiting."""
        if self.process:
            self.process.kill()

    @property
    def _address(self) -> Path:
        return self._folder / "address"

    @property
    def _log(self) -> Path:
        return self._folder / "registry.log"
