"""What processor this is and how busy, for whoever compares figures. Reads /proc.

Runs on: the main thread. Must not import: torch, kafka.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from worker.clock import Clock

# Those that decide how fast matrix products are; the names are the kernel's.
_TELLING: Final = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip

_IDLE: Final = (3, 4)  # of the times in /proc/stat (proc(5)): idle, and waiting for a disk
_LOOK_S: Final = 3.0


def cores_at_work(clock: Clock, stat: Path = Path("/proc/stat")) -> float:
    """How many cores have work, on the average over some seconds from now.

    The load average would still count what ended a minute ago; it answers where there is no /proc.
    """
    try:
        idle, total = _times(stat)
        clock.sleep(_LOOK_S)
        idle_then, total_then = _times(stat)
    except OSError:
        return os.getloadavg()[0]
    passed = total_then - total
    return (os.cpu_count() or 1) * (1 - (idle_then - idle) / passed) if passed else 0.0


def _times(stat: Path) -> tuple[int, int]:
    """Idle and all time of all cores so far, in the kernel's ticks; a guest's is in its user's."""
    times = [int(time) for time in stat.read_text().splitlines()[0].split()[1:9]]
    return sum(times[place] for place in _IDLE), sum(times)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """The processor's name, and those of its features that speed up matrix products."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return platform.processor() or platform.machine(), ()
    told = dict(_pairs(text))
    flags = set((told.get("flags") or told.get("Features") or "").split())
    name = told.get("model name") or platform.machine()
    return name, tuple(feature for feature in _TELLING if feature in flags)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return [(name.strip(), value.strip()) for name, _, value in pairs]
