"""The number of busy cores comes from the kernel's counters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.clocks import HandClock
from worker.bench.machine import cores_at_work

_CORES = os.cpu_count() or 1


class KernelClock(HandClock):
    """Sleeping adds busy and idle ticks to the counters."""

    def __init__(self, stat: Path, work: int, idle: int) -> None:
        super().__init__()
        self.stat, self.work, self.idle = stat, work, idle
        self.write(work=1_000, idle=5_000)

    def write(self, *, work: int, idle: int) -> None:
        user, system = work - work // 2, work // 2
        self.stat.write_text(f"cpu {user} 0 {system} {idle} {idle // 2} 0 0 0 {user} 0\ncpu0 1\n")

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.write(work=1_000 + self.work, idle=5_000 + self.idle)


@pytest.mark.parametrize(("work", "idle", "share"), [(0, 200, 0.0), (300, 0, 1.0), (150, 100, 0.5)])
def test_only_ticks_during_the_sample_count(
    tmp_path: Path, work: int, idle: int, share: float
) -> None:
    """User time includes guest time, and waiting for a disk counts as idle."""
    stat = tmp_path / "stat"
    assert cores_at_work(KernelClock(stat, work, idle), stat) == pytest.approx(share * _CORES)


def test_without_proc_the_load_average_is_used(tmp_path: Path) -> None:
    assert cores_at_work(HandClock(), tmp_path / "none") >= 0
