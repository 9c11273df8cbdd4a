"""Signals that stop this process: SIGINT, SIGTERM and SIGHUP.

Owns: their handlers, and the distinction between a first signal and a repeated one.
Thread: main; Python runs handlers between two of its bytecodes.
Must not import: anything of worker but `clock`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from worker.clock import Clock, SystemClock

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# One request to stop can send several signals: `timeout` sends SIGTERM to its child and then to its
# group, microseconds apart; a terminal that closes sends SIGHUP after the shell's.
_SAME_REQUEST: Final = 1.0  # seconds

Handler = Callable[[int, FrameType | None], None]


class RepeatDetector:
    """Distinguishes the first request to stop from a repeated one, at least a second later."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_at: float | None = None

    def record(self) -> bool:
        """Record a signal; return True if it repeats the request."""
        now = self._clock.monotonic()
        if self._first_at is None:
            self._first_at = now
        return now - self._first_at >= _SAME_REQUEST

    def reset(self) -> None:
        """Treat the next signal as a first one."""
        self._first_at = None


def catch(handle: Handler) -> dict[signal.Signals, Any]:
    """Install `handle` for each signal of `STOPPING`; return the handlers that it replaces.

    An ignored SIGHUP stays ignored: `nohup` started this process.
    """
    caught = [
        number
        for number in STOPPING
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    return {number: signal.signal(number, handle) for number in caught}


def stop_on_signals(stop: threading.Event, on_repeat: Callable[[], None] = lambda: None) -> None:
    """Set `stop` at the first signal; at a repeated one, call `on_repeat` and exit with 1."""
    repeats = RepeatDetector(SystemClock())

    def handle(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if repeats.record():
            # Not a clean end: the next owner of the partitions gets the records in flight again.
            os.write(sys.stderr.fileno(), f"second signal ({name}): stopping at once\n".encode())
            on_repeat()
            os._exit(1)
        stop.set()

    catch(handle)
