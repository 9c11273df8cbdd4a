"""What processor this is, for whoever compares figures. Reads /proc; must not import torch, kafka.

Runs on: the main thread.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

# Those that decide how fast matrix products are; the names are the kernel's.
_TELLING: Final = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip


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
