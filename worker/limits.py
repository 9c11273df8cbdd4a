"""Reads how many cores and how much memory this process may use, from its affinity and its cgroups.

Both versions of cgroups are read, because a machine may have either or both. A group is bounded by
its ancestors too, so each one that this process can see is read, and the smallest limit applies.
A container usually sees its own group alone, at the mount point.

Owns: reading /proc/self and the cgroups' files.
Thread: any; nothing is kept.
Must not import: anything of worker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

_ROOT: Final = Path("/")
_V2: Final = "cgroup2"
# Lines of /proc/self/cgroup, cgroups(7), and mountinfo, proc_pid_mountinfo(5): the group that the
# mount point shows, the mount point, the version, and the controllers of version 1.
_MEMBERSHIP: Final = re.compile(r"^\d+:(.*?):(.+)$", re.MULTILINE)
_MOUNT: Final = re.compile(r"^\d+ \d+ \S+ (\S+) (\S+) .*- (cgroup2?) \S* (\S+)$", re.MULTILINE)
# There, `\040` stands for a space.
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_ANONYMOUS: Final = re.compile(r"^RssAnon:\s*(\d+) kB$", re.MULTILINE)
_OOM_KILL: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
# Version 1 writes the largest number of pages for "no limit", about 2**63 bytes.
_NO_LIMIT: Final = 2**60


class CpuLimit(NamedTuple):
    """The CPU time that this process may use.

    Attributes:
        usable: number of cores in its affinity.
        quota: cores' worth of time that its cgroups allow; None without a quota.
    """

    usable: int
    quota: float | None

    @property
    def cores(self) -> int:
        """Number of threads to compute with.

        A fraction is rounded down. With one thread more, the quota ends before the period does, and
        the kernel stops all threads until the next one, also those that read and publish; they use
        the fraction. A quota below one core leaves one thread.
        """
        return self.usable if self.quota is None else max(1, min(self.usable, int(self.quota)))

    def __str__(self) -> str:
        number = f"{self.cores} core" + "s" * (self.cores != 1)
        return (
            number if self.quota is None else f"{number}: quota {self.quota:.3g} of {self.usable}"
        )


def cores(processes: int = 1) -> int:
    """Return the number of threads to compute with, in each of some processes; at least one."""
    return max(1, cpu_limit().cores // processes)


def cpu_limit(root: Path = _ROOT) -> CpuLimit:
    """Return this process's CPU affinity and quota; `root` holds /proc and /sys."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        usable = os.cpu_count() or 1
    quotas = (_quota(group) for group in groups("cpu", root))
    return CpuLimit(usable, min((quota for quota in quotas if quota), default=None))


def memory_limit(root: Path = _ROOT) -> int | None:
    """Return the bytes that this process's cgroups let it use, or None without a limit."""
    files = ("memory.max", "memory.limit_in_bytes")
    limits = (_number(group / file) for group in groups("memory", root) for file in files)
    return min((n for n in limits if n is not None and n < _NO_LIMIT), default=None)


def may_swap(root: Path = _ROOT) -> bool:
    """Return whether this process may use swap space, so that it may exceed its limit, slowly."""
    if len(_text(root / "proc/swaps").splitlines()) <= 1:  # only its head
        return False
    # Version 1 limits the sum of memory and swap, version 2 swap alone.
    limit = memory_limit(root)
    sums = (_number(group / "memory.memsw.limit_in_bytes") for group in groups("memory", root))
    swaps = (_number(group / "memory.swap.max") for group in groups("memory", root))
    forbidden = limit is not None and any(both is not None and both <= limit for both in sums)
    return not forbidden and 0 not in swaps


def own_memory(root: Path = _ROOT) -> int | None:
    """Return the bytes of this process that the kernel can't drop; None if it does not say.

    RssAnon of /proc/self/status, proc(5): without the pages of files, which can be read again.
    """
    line = _ANONYMOUS.search(_text(root / "proc/self/status"))
    return int(line[1]) * 1024 if line else None


def oom_kills(root: Path = _ROOT) -> int | None:
    """Return how many processes of this cgroup the kernel killed for memory; None if unknown."""
    for group in groups("memory", root):
        for file in ("memory.events", "memory.oom_control"):
            if counted := _OOM_KILL.search(_text(group / file)):
                return int(counted[1])
    return None


def as_mib(size: int) -> str:
    """Return bytes for people: `1,024 MiB`."""
    return f"{size / 2**20:,.0f} MiB"


def groups(controller: str, root: Path = _ROOT) -> Iterator[Path]:
    """Yield the folders of this process's groups that may limit it, each before its parent.

    A machine with both versions may have a controller in either, so the files decide.
    """
    paths: dict[str, str] = {}
    for names, path in _MEMBERSHIP.findall(_text(root / "proc/self/cgroup")):
        paths |= dict.fromkeys(names.split(",") if names else [_V2], path)
    for top, point, kind, options in _MOUNT.findall(_text(root / "proc/self/mountinfo")):
        hierarchy = controller if kind != _V2 and controller in options.split(",") else kind
        if hierarchy in paths:
            mount = root / _unescaped(point).lstrip("/")
            yield from _lineage(mount, _unescaped(top), paths[hierarchy])


def _lineage(mount: Path, top: str, path: str) -> Iterator[Path]:
    """Yield a group's folder and those above it, up to the mount point.

    Args:
        mount: where the hierarchy is mounted.
        top: the group that the mount point shows.
        path: this process's group.
    """
    try:
        below = PurePosixPath(path).relative_to(top)
    except ValueError:  # the mount shows another part of the hierarchy than this process's
        below = PurePosixPath()
    if ".." in below.parts:  # the group is outside of this process's namespace
        below = PurePosixPath()
    yield from (mount / part for part in (below, *below.parents))


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)


def _quota(group: Path) -> float | None:
    """Return the quota of one group, in cores, or None."""
    words = _text(group / "cpu.max").split()
    if not words:
        words = [_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        allowed, period = map(int, words)
        return allowed / period if allowed > 0 else None
    except (ValueError, ZeroDivisionError):  # no such files, or "max", which is no bound
        return None


def _number(file: Path) -> int | None:
    try:
        return int(_text(file))
    except ValueError:  # no such file, or "max"
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
