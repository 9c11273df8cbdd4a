"""Child processes that can't outlive this one, and signals that interrupt only where it is safe.

Owns: starting children outside the terminal's process group, stopping them within a bound, and
SIGINT, SIGTERM and SIGHUP while the demo runs. Runs on: the main thread.
Must not import: kafka, torch, any other room.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Final, Self

from worker.clock import Clock
from worker.signals import Insistence, catch

# Runs in the child, ahead of the program that it turns into: ask the kernel for SIGKILL when the
# parent dies (Linux only), and look whether it died before we could ask. A `preexec_fn` would do
# the same in a forked copy of this process, where another thread may hold a lock.
_PARENT_WATCH: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("its parent is gone")
os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""


def spawn(
    command: Sequence[str | Path],
    output: IO[bytes],
    environ: Mapping[str, str] | None = None,
    errors: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, without input; `errors` goes to `output` if not given.

    On Linux the kernel kills it when this thread ends. Elsewhere only `stop` ends it.
    """
    watch = [sys.executable, "-I", "-S", "-c", _PARENT_WATCH, str(os.getpid())]
    return subprocess.Popen(
        [*(watch if sys.platform == "linux" else []), *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors or subprocess.STDOUT,
        env=environ,
        start_new_session=True,  # the terminal's Ctrl-C is ours to pass on
    )


def stop(process: subprocess.Popen[bytes], grace: float) -> int:
    """Ask a child to end, and kill it after `grace` seconds; return its exit code."""
    terminate(process)
    return finish(process, grace)


def terminate(process: subprocess.Popen[bytes]) -> None:
    """Ask a child, and whatever it has started itself, to end; one that has ended is left alone."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)


def finish(process: subprocess.Popen[bytes], grace: float) -> int:
    """Wait for a child that was asked to end; kill what is left of it and of its own children."""
    running = process.poll() is None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    if running:
        _signal_group(process, signal.SIGKILL)
    return process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a zombie's group
        os.killpg(process.pid, number)


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a child's output, for a person to read."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line[:400]}" for line in lines[-count:]) or "  (it wrote nothing)"


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP become one KeyboardInterrupt, raised only inside `allowed`.

    Everywhere else a signal is noted and waits, so that no child and no folder can be made
    without being written down for the clean-up, and the clean-up itself is never cut short.
    A further signal, a second or more after the first, means that the person has no patience: then
    every `on_second` is called, which kills what the clean-up would have waited for.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._insistence = clock, Insistence(clock)
        self._hurry: list[Callable[[], None]] = []
        self._before: dict[signal.Signals, Any] = {}
        self._allowed = False
        self._noted = False
        self._raised = False

    def __enter__(self) -> Self:
        self._before = catch(self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_second(self, kill: Callable[[], None]) -> None:
        """Call `kill` when a second signal comes."""
        self._hurry.append(kill)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Inside, a signal interrupts at once; one that waits does so at the door."""
        if self._noted and not self._raised:
            self._raise()
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def sleep(self, seconds: float) -> None:
        """Wait, and let a signal interrupt."""
        with self.allowed():
            self._clock.sleep(seconds)

    def until_one(self, work: Callable[[], object]) -> None:
        """Call `work` over and over until a signal comes; that signal counts as answered."""
        try:
            while True:
                work()
        except KeyboardInterrupt:
            self._noted = self._raised = False
            self._insistence.forget()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._insistence.grows():
            for kill in self._hurry:
                kill()
        self._noted = True
        if self._allowed and not self._raised:
            self._raise()

    def _raise(self) -> None:
        self._raised = True
        raise KeyboardInterrupt
