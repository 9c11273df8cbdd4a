"""Work that the demo and the bench run in short-lived Python processes.

A process of its own can be interrupted at any moment, and keeps torch out of the caller's process.

Owns: downloading the tweets, preparing the bundled model and running other commands.
Thread: main.
Must not import: kafka, torch (the child processes do).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from worker.clock import Clock
from worker.demo.posts import RatedText, SampleUnavailable, load_rated
from worker.errors import Fatal
from worker.processes import Interrupts, last_lines, spawn, stop
from worker.settings import child_environment

# Called while something runs: the activity, and the seconds since it began.
Progress = Callable[[str, float], None]

_GRACE_S: Final = 10.0

# SIGTERM becomes an exception in the child, so that it removes half-written files.
_TIDY: Final = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, signal.default_int_handler)
"""
_FETCH: Final = f"""{_TIDY}
from worker.demo.posts import SampleUnavailable, load_rated
try:
    load_rated("tweets", Path(sys.argv[1]))
except SampleUnavailable as error:
    sys.exit(str(error))
"""
_PREPARE: Final = f"""{_TIDY}
from worker.errors import StreamlabelError
from worker.inference.bundled import prepare
try:
    prepare(Path(sys.argv[1]))
except StreamlabelError as error:
    sys.exit(str(error))
"""


def no_progress(activity: str, seconds: float) -> None:
    """Show no progress."""


class Helpers:
    """Runs helper processes, one after the other.

    Args:
        folder: for their temporary files and logs; its owner removes it.
        stack: unwound at the end of the demo; stops a helper that still runs.
        interrupts: lets Ctrl-C end a wait.
        clock: measures how long a helper has run.
        progress: called again and again while a helper runs.
    """

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        interrupts: Interrupts,
        clock: Clock,
        progress: Progress = no_progress,
    ) -> None:
        self._folder = folder
        self._stack = stack
        self._interrupts = interrupts
        self._clock = clock
        self._progress = progress

    def tweets(self, cache_dir: Path) -> list[RatedText]:
        """Return the tweets, downloaded unless they are cached. Raises SampleUnavailable."""
        log = self._folder / "fetch.log"
        if self.run("getting the rated tweets", ["-P", "-c", _FETCH, str(cache_dir)], log):
            raise SampleUnavailable(last_lines(log, 1).strip())
        return load_rated("tweets", cache_dir)

    def prepare_model(self, cache_dir: Path) -> None:
        """Make the bundled model's checkpoint unless it is cached. Raises Fatal."""
        log = self._folder / "prepare.log"
        if self.run("preparing the bundled model", ["-P", "-c", _PREPARE, str(cache_dir)], log):
            raise Fatal(f"can't prepare the bundled model:\n{last_lines(log)}")

    def output_of(self, activity: str, command: Sequence[str]) -> tuple[int, list[str]]:
        """Run Python with these arguments; return its exit code and the lines of its output.

        Raises Fatal if it printed nothing or exited with a code other than 0 or 1.
        """
        log, output = self._folder / "command.log", self._folder / "command.out"
        code = self.run(activity, command, log, output)
        lines = output.read_text(encoding="utf-8").splitlines()
        if code not in (0, 1) or not lines:
            program = " ".join(command[:4])
            raise Fatal(f"{program} exited with code {code}; its log ends:\n{last_lines(log)}")
        return code, lines

    def run(
        self, activity: str, command: Sequence[str], log: Path, output: Path | None = None
    ) -> int:
        """Run Python with these arguments to its end and return its exit code."""
        environ = child_environment(TMPDIR=str(self._folder))
        with log.open("ab") as stderr, (output or log).open("ab") as stdout:
            process = spawn([sys.executable, *command], stdout, environ, stderr)
        self._stack.callback(stop, process, _GRACE_S)
        self._interrupts.on_second(process.kill)
        started = self._clock.monotonic()
        while (code := process.poll()) is None:
            self._progress(activity, self._clock.monotonic() - started)
            self._interrupts.sleep(0.05)
        return code
