"""CPU seconds of processes, which do not depend on who shares the cores.

Owns: reading /proc and getrusage.
Thread: main.
Must not import: torch, kafka.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_LISTENING: Final = "0A"  # TCP_LISTEN of the kernel's tcp_states.h
# Work in flight at the begin of a measurement is in flight at its end, too, if both lie in the
# middle of a drain.
_MIDDLE: Final = (0.1, 0.9)

Seconds = Callable[[], float | None]


def own_seconds() -> float:
    """Return the CPU seconds of this process, user and system, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def process_seconds(pid: int, proc: Path = PROC) -> float | None:
    """Return the CPU seconds of a process in all its threads, or None without such a process."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    user, system = stat.rpartition(")")[2].split()[11:13]  # utime, stime, see proc(5)
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def listener(port: int, proc: Path = PROC) -> int | None:
    """Return the process that listens on a port of this machine.

    Return None if there is none, or if it belongs to another user or another container.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port, proc)}
    for descriptor in proc.glob("[0-9]*/fd/*") if sockets else ():
        with suppress(OSError):  # it is another user's, or has been closed
            if str(descriptor.readlink()) in sockets:
                return int(descriptor.parts[-3])
    return None


def _listening(port: int, proc: Path) -> set[str]:
    """Return the inodes of the sockets that listen on the port."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                local, state, inode = fields[1], fields[3], fields[9]
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    inodes.add(inode)
    return inodes


class CpuMeter:
    """The CPU time that each process uses for a record, over the middle of a drain.

    Args:
        records: records of the whole drain.
        processes: for each name the CPU seconds so far; None if they are unknown.
    """

    def __init__(self, records: int, processes: Mapping[str, Seconds]) -> None:
        self._first, self._last = (share * records for share in _MIDDLE)
        self._processes = processes
        self._notes: list[tuple[int, dict[str, float | None]]] = []

    def note(self, done: int) -> None:
        """Tell the meter that `done` records have been drained; reads the times when needed."""
        bound = self._last if self._notes else self._first
        if done >= bound and len(self._notes) < 2:
            self._notes.append((done, {name: read() for name, read in self._processes.items()}))

    def us_a_record(self, name: str) -> float | None:
        """Return the CPU microseconds a record of one process, or None if they are unknown."""
        if len(self._notes) < 2:
            return None
        (begun, before), (done, after) = self._notes
        start, end = before[name], after[name]
        if start is None or end is None or done == begun:
            return None
        return (end - start) * 1e6 / (done - begun)
