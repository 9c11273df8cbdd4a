"""The processor's name, features and load, recorded beside measured figures.

Owns: reading /proc.
Thread: main.
Must not import: torch, kafka.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from worker.clock import Clock

# The features that decide the speed of matrix products, by the kernel's names.
_MATRIX_FEATURES: Final = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip

_IDLE_FIELDS: Final = (3, 4)  # of the times in /proc/stat, see proc(5): idle, and iowait
_SAMPLE_S: Final = 3.0


def cores_at_work(clock: Clock, stat: Path = Path("/proc/stat")) -> float:
    """Return the mean number of busy cores over the next seconds.

    Without /proc, return the load average, which still counts work that ended a minute ago.
    """
    try:
        idle, total = _times(stat)
        clock.sleep(_SAMPLE_S)
        idle_after, total_after = _times(stat)
    except OSError:
        return os.getloadavg()[0]
    ticks = total_after - total
    return (os.cpu_count() or 1) * (1 - (idle_after - idle) / ticks) if ticks else 0.0


def _times(stat: Path) -> tuple[int, int]:
    """Return idle and total ticks of all cores; guest time is part of user time."""
    times = [int(time) for time in stat.read_text().splitlines()[0].split()[1:9]]
    return sum(times[field] for field in _IDLE_FIELDS), sum(times)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """Return the processor's name, and its features that speed up matrix products."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine(), ()
    fields = dict(_pairs(text))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or platform.machine()
    return name, tuple(feature for feature in _MATRIX_FEATURES if feature in flags)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return [(name.strip(), value.strip()) for name, _, value in pairs]
