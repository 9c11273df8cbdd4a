"""Gives the broker, the sender and the reader of a bench cores of their own.

Owns: the CPU affinity of the bench's processes.
Thread: main, whose children and threads inherit its cores.
Must not import: torch, kafka.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.bench.usage import PROC
from worker.errors import SettingsError
from worker.limits import cores

Cores = frozenset[int]


@dataclass(frozen=True)
class CoreShares:
    """The cores of the worker and the engine, and those of broker, sender and reader."""

    model: Cores
    clients: Cores


def shares(client_cores: int) -> CoreShares | None:
    """Return disjoint shares of this process's cores, or None if all share all of them.

    Raises SettingsError if no core is left to the worker, or if the system pins no processes.
    """
    if not client_cores:
        return None
    if not hasattr(os, "sched_setaffinity"):
        raise SettingsError("--client-cores needs Linux: leave it out")
    number = cores()
    if client_cores >= number:
        raise SettingsError(
            f"--client-cores {client_cores} leaves none of this machine's {number} usable cores to "
            f"the worker: give at most {number - 1}, or 0 to share them"
        )
    usable = sorted(os.sched_getaffinity(0))[:number]
    return CoreShares(frozenset(usable[client_cores:]), frozenset(usable[:client_cores]))


@contextlib.contextmanager
def running_on(chosen: Cores | None) -> Iterator[None]:
    """Run this thread, and all that it starts, on the chosen cores; None changes nothing."""
    if chosen is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(pid: int, chosen: Cores, proc: Path = PROC) -> None:
    """Move all threads of a running process to the chosen cores."""
    for task in (proc / str(pid) / "task").glob("[0-9]*"):
        with suppress(OSError):  # the thread has ended, or the process is another user's
            os.sched_setaffinity(int(task.name), chosen)
