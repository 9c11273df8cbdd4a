"""What the demo has done by short-lived Python processes of their own.

Owns: fetching the tweets, preparing the bundled model and running other commands in a way that
Ctrl-C can end at any moment, and that leaves the demo's own process without torch. Runs on: the
demo's main thread. Must not import: kafka, torch (its children do).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from worker.demo.posts import RatedText, SampleUnavailable, load_rated
from worker.errors import Fatal
from worker.processes import Interrupts, last_lines, spawn, stop
from worker.settings import child_environment

_GRACE_S: Final = 10.0

# SIGTERM becomes an exception in the child, so that what it has half written is removed on the
# way out.
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


class Helpers:
    """Runs them one after the other.

    Args:
        folder: their temporary files and logs; its owner removes it.
        stack: unwound at the end of the demo, and with it a helper that still runs.
        interrupts: lets Ctrl-C end the wait for one.
    """

    def __init__(self, folder: Path, stack: ExitStack, interrupts: Interrupts) -> None:
        self._folder = folder
        self._stack = stack
        self._interrupts = interrupts

    def tweets(self, cache_dir: Path) -> list[RatedText]:
        """Fetch the tweets unless they are cached, and read them. Raises SampleUnavailable."""
        log = self._folder / "fetch.log"
        if self.run(["-P", "-c", _FETCH, str(cache_dir)], log):
            raise SampleUnavailable(last_lines(log, 1).strip())
        return load_rated("tweets", cache_dir)

    def prepare_model(self, cache_dir: Path) -> None:
        """Make the bundled model's checkpoint unless it is cached. Raises Fatal."""
        log = self._folder / "prepare.log"
        if self.run(["-P", "-c", _PREPARE, str(cache_dir)], log):
            raise Fatal(f"the bundled model can't be prepared:\n{last_lines(log)}")

    def output_of(self, command: Sequence[str]) -> tuple[int, list[str]]:
        """Run Python with these arguments; return its exit code and the lines that it printed.

        Raises Fatal where it printed nothing or ended with anything but 0 or 1.
        """
        log, printed = self._folder / "command.log", self._folder / "command.out"
        code = self.run(command, log, printed)
        lines = printed.read_text(encoding="utf-8").splitlines()
        if code not in (0, 1) or not lines:
            raise Fatal(f"{' '.join(command[:4])} ended with {code}:\n{last_lines(log)}")
        return code, lines

    def run(self, command: Sequence[str], log: Path, printed: Path | None = None) -> int:
        """Run Python with these arguments to its end and return its exit code."""
        environ = child_environment(TMPDIR=str(self._folder))
        with log.open("ab") as errors, (printed or log).open("ab") as output:
            process = spawn([sys.executable, *command], output, environ, errors)
        self._stack.callback(stop, process, _GRACE_S)
        self._interrupts.on_second(process.kill)
        while (code := process.poll()) is None:
            self._interrupts.sleep(0.05)
        return code
