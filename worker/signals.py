"""Signals that stop this process, SIGINT, SIGTERM and SIGHUP, or make it read its settings again.

Owns: their handlers, and the distinction between a first signal and a repeated one.
Thread: main; Python runs handlers between two of its bytecodes.
Must not import: anything of worker but `clock` and `errors`.
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
from worker.errors import Interrupted

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

HANG_UP: Final = signal.SIGHUP.name

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


def interrupt_as_our_own() -> None:
    """Let Ctrl-C raise Interrupted, unless it is ignored or handled already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


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


def is_daemon() -> bool:
    """Return whether no terminal can hang up on this process: its standard input is none.

    Daemons read their settings again at SIGHUP. For any other program it means that its terminal
    has gone, and that it has to end (signal(7), credentials(7)).
    """
    try:
        return not sys.stdin.isatty()
    except (AttributeError, ValueError):  # closed
        return True


def stop_on_signals(
    stop: threading.Event,
    on_repeat: Callable[[], None] = lambda: None,
    on_hang_up: Callable[[], None] | None = None,
) -> None:
    """Set `stop` at the first signal; at a repeated one, call `on_repeat` and exit with 1.

    Args:
        stop: set from the handler.
        on_repeat: called from the handler, before the exit.
        on_hang_up: called from the handler at SIGHUP, which then stops nothing. It must be safe
            while any other code of the main thread is interrupted.
    """
    repeats = RepeatDetector(SystemClock())

    def handle(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP and on_hang_up:
            on_hang_up()
            return
        if repeats.record():
            # Not a clean end: the next owner of the partitions gets the records in flight again.
            os.write(sys.stderr.fileno(), f"second signal ({name}): stopping at once\n".encode())
            on_repeat()
            os._exit(1)
        stop.set()

    catch(handle)
