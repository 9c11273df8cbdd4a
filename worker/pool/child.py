"""One life of a slot's process: started, listened to, ended.

The parent's main thread owns it; a thread of its own reads the reports until the pipe's other end
closes, and one writes (`questions`). Imports `box` and the ground floor.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import IO, Any, cast

from worker.clock import Clock
from worker.http.ask import Answer
from worker.pool.questions import Questions
from worker.pool.reports import ChildReport, decode

# The parent's own import path, so that parent and child are the same code wherever each is started
# from; -P keeps out the current folder, where anybody's `worker/` may lie.
_ENTRY = (
    "import sys; sys.path[:] = sys.argv[1:]; from worker.pool.entry import main; sys.exit(main())"
)


def command() -> list[str]:
    """How a worker of a pool is started; all that it must know comes by its stdin."""
    return [sys.executable, "-P", "-c", _ENTRY, *sys.path]


class Child:
    """A process that is running or has ended.

    Args:
        program: what to start; reads its order as one JSON line.
        order: the slot and its settings.
        environ: its environment.
        clock: dates the reports.
        on_report: called with each one, on the reader's thread.

    Attributes:
        report: the last one; None before the first.
        heard_at: when it came, or when the process was started, in seconds of `clock`.
    """

    def __init__(
        self,
        program: Sequence[str],
        order: Mapping[str, Any],
        environ: Mapping[str, str],
        clock: Clock,
        on_report: Callable[[ChildReport], None],
    ) -> None:
        self._clock, self._on_report = clock, on_report
        self.report: ChildReport | None = None
        self.heard_at = clock.monotonic()
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            start_new_session=True,  # the terminal's Ctrl-C is the parent's to pass on
        )
        self.pid = self._process.pid
        stdin = cast("IO[bytes]", self._process.stdin)
        self._questions = Questions(stdin, order, self.pid)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._reader = threading.Thread(
            target=self._listen, name=f"reports-{self.pid}", daemon=True
        )
        self._reader.start()

    def poll(self) -> int | None:
        """The exit code (less than 0: the signal that killed it), once all it said is read."""
        code = self._process.poll()
        if code is None or self._stdout.closed:
            return code
        self._reader.join()
        self._questions.close()
        self._stdout.close()
        return code

    @property
    def free(self) -> bool:
        """Whether it can be asked."""
        return self._questions.free

    def ask(self, text: str) -> Future[Answer]:
        """HTTP thread: put a question to it while it is free."""
        return self._questions.ask(text)

    def terminate(self) -> None:
        """Ask it to drain and end; one that has ended is left alone."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once. Safe in a signal handler."""
        self._process.kill()

    @property
    def fault(self) -> str:
        """What it said was wrong, if anything."""
        return self.report.reason if self.report else ""

    @property
    def reason(self) -> str:
        """Why it ended, once it has: its own words, or what its exit code tells."""
        if self.fault:
            return self.fault
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return "killed by SIGKILL; where nobody did that, the machine was out of memory"
        if code < 0:
            return f"killed by signal {-code} ({signal.strsignal(-code)})"
        return f"exit code {code}; its log tells more" if code else "it was told to stop"

    def _listen(self) -> None:
        for line in self._stdout:
            with contextlib.suppress(ValueError):  # cut off by SIGKILL
                self.report = decode(line)
                self.heard_at = self._clock.monotonic()
                self._on_report(self.report)
                if self.report.answer is not None:
                    self._questions.answered(self.report.answer)
