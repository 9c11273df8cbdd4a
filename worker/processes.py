"""Child processes that don't outlive this one, and signals that interrupt only where it is safe.

Owns: starting children outside the terminal's process group, stopping them within a bound, and
SIGINT, SIGTERM and SIGHUP during the demo and the bench.
Thread: main.
Must not import: anything of worker but `clock` and `signals`.
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
from worker.errors import Interrupted
from worker.signals import RepeatDetector, catch

# Runs in the child before its program: asks the kernel for SIGKILL when the parent dies (Linux
# only), then checks that the parent did not die before. A `preexec_fn` would do the same in a
# forked copy of this process, where another thread may hold a lock.
_PARENT_WATCH: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process has ended")
os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""


def spawn(
    command: Sequence[str | Path],
    output: IO[bytes],
    environ: Mapping[str, str] | None = None,
    errors: IO[bytes] | None = None,
    source: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own.

    On Linux the kernel kills it when this thread ends. Elsewhere only `stop` ends it.

    Args:
        command: program and arguments.
        output: receives standard output.
        environ: the child's environment; by default ours.
        errors: receives standard error; by default `output` does.
        source: its standard input: none, or `subprocess.PIPE`.
    """
    watch = [sys.executable, "-I", "-S", "-c", _PARENT_WATCH, str(os.getpid())]
    return subprocess.Popen(
        [*(watch if sys.platform == "linux" else []), *map(str, command)],
        stdin=source,
        stdout=output,
        stderr=errors or subprocess.STDOUT,
        env=environ,
        start_new_session=True,  # we pass on the terminal's Ctrl-C
    )


def stop(process: subprocess.Popen[bytes], grace: float) -> int:
    """Terminate a child, and kill it after `grace` seconds; return its exit code."""
    terminate(process)
    return finish(process, grace)


def terminate(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a running child and its own children."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)


def finish(process: subprocess.Popen[bytes], grace: float) -> int:
    """Wait for a terminated child; after `grace` seconds kill it and its own children."""
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
    """Return the last lines of a child's output, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line[:400]}" for line in lines[-count:]) or "  (no output)"


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into one Interrupted, raised only inside `allowed`.

    Elsewhere a signal is remembered: so every child and folder is registered for the clean-up
    before an interrupt, and the clean-up itself is not interrupted. A repeated signal, a second or
    more after the first, calls every `on_second` callback; they kill the children that the
    clean-up would wait for.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._repeats = clock, RepeatDetector(clock)
        self._on_second: list[Callable[[], None]] = []
        self._replaced: dict[signal.Signals, Any] = {}
        self._allowed = False
        self._pending = False
        self._raised = False

    def __enter__(self) -> Self:
        self._replaced = catch(self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)

    def on_second(self, kill: Callable[[], None]) -> None:
        """Call `kill` at a repeated signal."""
        self._on_second.append(kill)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals interrupt the block; a pending one interrupts at its start."""
        if self._pending and not self._raised:
            self._raise()
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def sleep(self, seconds: float) -> None:
        """Sleep; a signal interrupts."""
        with self.allowed():
            self._clock.sleep(seconds)

    def repeat_until_signal(self, work: Callable[[], object]) -> None:
        """Call `work` repeatedly until a signal arrives; the next signal is a first one again."""
        try:
            while True:
                work()
        except KeyboardInterrupt:
            self._pending = self._raised = False
            self._repeats.reset()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._repeats.record():
            for kill in self._on_second:
                kill()
        self._pending = True
        if self._allowed and not self._raised:
            self._raise()

    def _raise(self) -> None:
        self._raised = True
        raise Interrupted
