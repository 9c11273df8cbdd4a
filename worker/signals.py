"""Signals that ask this process to end: which ones they are, and when another one insists.

Handlers run on the main thread, between two of its steps. Imports `clock` alone.
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

# One wish to stop can send several signals: `timeout` sends SIGTERM to its child and then to its
# group, microseconds apart; a terminal that closes sends SIGHUP after the shell's.
_ONE_WISH: Final = 1.0  # seconds

Handler = Callable[[int, FrameType | None], None]


class Insistence:
    """Tells the first signal from one that insists, which comes at least a second later."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: float | None = None

    def grows(self) -> bool:
        """Count one signal; returns whether it insists."""
        now = self._clock.monotonic()
        if self._first is None:
            self._first = now
        return now - self._first >= _ONE_WISH

    def forget(self) -> None:
        """The next signal is a first one."""
        self._first = None


def catch(handle: Handler) -> dict[signal.Signals, Any]:
    """Have `handle` called for each signal of `STOPPING`; returns the handlers that it replaces.

    A SIGHUP that is ignored stays so: `nohup` started this process.
    """
    caught = [
        number
        for number in STOPPING
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    return {number: signal.signal(number, handle) for number in caught}


def stop_on_signals(stop: threading.Event, at_once: Callable[[], None] = lambda: None) -> None:
    """A signal sets `stop`; one that insists calls `at_once` and ends the process."""
    insistence = Insistence(SystemClock())

    def handle(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if insistence.grows():
            # Not a clean end: what is in flight comes again to whoever takes the partitions over.
            os.write(sys.stderr.fileno(), f"{name} again: stopping at once\n".encode())
            at_once()
            os._exit(1)
        stop.set()

    catch(handle)
