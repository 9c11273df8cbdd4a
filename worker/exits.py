"""Ends this process although a thread of it does not end.

Owns: the threads that were given up.
Thread: any thread gives up another one; main leaves.
Must not import: anything of worker.

A library's own code can't be interrupted, and the interpreter waits at its exit for every thread
that is no daemon. A daemon would wake up in an interpreter that is being destroyed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import Final

_EXIT_FUNCTIONS: Final = 2.0  # seconds; one of them may wait for the thread, or for its lock

_given_up: list[threading.Thread] = []


def give_up(thread: threading.Thread) -> None:
    """Let `leave` end the process although this thread runs."""
    _given_up.append(thread)


def leave(code: int) -> int:
    """Return the exit code; or end the process with it now, if a thread that was given up runs.

    Before that, it calls the functions that are registered for the exit and writes the buffers, as
    the interpreter does.
    """
    if not any(thread.is_alive() for thread in _given_up):
        return code
    end = threading.Timer(_EXIT_FUNCTIONS, os._exit, [code])
    end.daemon = True
    end.start()
    _flush()  # before a function that may wait
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way, and coverage saves there
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
            stream.flush()
