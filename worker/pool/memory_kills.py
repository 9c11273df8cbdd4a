"""Tells a process that the kernel killed for memory from one that someone killed.

Owns: how many of the cgroup's kills are attributed to a process.
Thread: main.
Must not import: kafka, torch, transformers.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.limits import as_mib, memory_limit, oom_kills


class MemoryKills:
    """The kernel's kills in this cgroup, each of which explains the end of one process.

    Args:
        count: returns the kills so far; None if the kernel does not tell.
    """

    def __init__(self, count: Callable[[], int | None] = oom_kills) -> None:
        self._count, self._explained = count, count() or 0

    def explanation(self) -> str:
        """Return why a process ended by SIGKILL; call it once for each, when it has ended."""
        if (self._count() or 0) <= self._explained:
            return "killed by SIGKILL: unless someone sent it, the machine ran out of memory"
        self._explained += 1
        if (limit := memory_limit()) is None:
            return "probably killed by the kernel for memory: the machine ran out"
        return (
            f"probably killed by the kernel for memory: limit {as_mib(limit)} for all processes; raise "
            "the memory limit, start fewer processes, or choose a smaller model"
        )
