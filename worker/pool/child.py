"""Runs one process of a slot, from its start to its end.

Owns: the process, its pipes, and the thread that reads its reports until the pipe closes.
Thread: main, except `ask` and `free` (http) and the reader `reports-PID`.
Must not import: kafka, torch, transformers.
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
from worker.pool.memory_kills import MemoryKills
from worker.pool.questions import QuestionWriter
from worker.pool.reports import ChildReport, decode

# The child gets the parent's import path, so that both run the same code from any directory; -P
# keeps the current directory out of it, which may hold another package named `worker`.
_ENTRY = (
    "import sys; sys.path[:] = sys.argv[1:]; from worker.pool.entry import main; sys.exit(main())"
)


def command() -> list[str]:
    """Return the command line that starts a child; its settings come over stdin."""
    return [sys.executable, "-P", "-c", _ENTRY, *sys.path]


class Child:
    """A process that is running or has ended.

    Args:
        program: the command line.
        config: the slot's number and settings, sent to the process as one JSON line.
        environ: the process's environment.
        clock: dates the reports.
        on_report: called with each report, on the reader's thread.
        kills: explains an end by SIGKILL.

    Attributes:
        report: the last report; None before the first.
        reported_at: time of the last report, or of the start, in seconds of `clock`.
    """

    def __init__(
        self,
        program: Sequence[str],
        config: Mapping[str, Any],
        environ: Mapping[str, str],
        clock: Clock,
        on_report: Callable[[ChildReport], None],
        kills: MemoryKills,
    ) -> None:
        self._clock, self._on_report, self._kills = clock, on_report, kills
        self._killed = ""
        self.report: ChildReport | None = None
        self.reported_at = clock.monotonic()
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            start_new_session=True,  # a Ctrl-C reaches the parent alone, which stops the children
        )
        self.pid = self._process.pid
        stdin = cast("IO[bytes]", self._process.stdin)
        self._questions = QuestionWriter(stdin, config, self.pid)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._reader = threading.Thread(
            target=self._read_reports, name=f"reports-{self.pid}", daemon=True
        )
        self._reader.start()

    def poll(self) -> int | None:
        """Return the exit code, once all reports are read; negative: the signal that killed it."""
        code = self._process.poll()
        if code is None or self._stdout.closed:
            return code
        self._reader.join()
        self._questions.close()
        self._stdout.close()
        if code == -signal.SIGKILL:
            self._killed = self._kills.explanation()
        return code

    @property
    def free(self) -> bool:
        """True while the process runs and owes no answer."""
        return self._questions.free

    def ask(self, text: str, record: Mapping[str, Any] | None = None) -> Future[Answer]:
        """Send a question to the process while it is free. HTTP thread only."""
        return self._questions.ask(text, record)

    def order(self, order: Mapping[str, Any]) -> None:
        """Send an order to the process, running or not. Main thread only."""
        self._questions.order(order)

    def terminate(self) -> None:
        """Send SIGTERM, so that the process drains and ends; no effect once it has ended."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL. Safe in a signal handler."""
        self._process.kill()

    @property
    def fault(self) -> str:
        """The error in the last report; empty if there is none."""
        return self.report.reason if self.report else ""

    @property
    def reason(self) -> str:
        """Why the process ended: the error it reported, or what its exit code means."""
        if self.fault:
            return self.fault
        code = self._process.returncode
        if self._killed:
            return self._killed
        if code < 0:
            return f"killed by signal {-code} ({signal.strsignal(-code)})"
        return f"exit code {code}; see its log" if code else "it received a stop signal"

    def _read_reports(self) -> None:
        for line in self._stdout:
            with contextlib.suppress(ValueError):  # a line cut off by SIGKILL
                self.report = decode(line)
                self.reported_at = self._clock.monotonic()
                self._on_report(self.report)
                if self.report.answer is not None:
                    self._questions.resolve(self.report.answer)
