"""How busy the machine is, read off the kernel's own counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.clocks import HandClock
from worker.bench.machine import cores_at_work

_CORES = os.cpu_count() or 1


class Kernel(HandClock):
    """While somebody sleeps, ticks go by: some of them at work, the rest idle or at the disk."""

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
def test_what_worked_meanwhile_counts_and_nothing_before(
    tmp_path: Path, work: int, idle: int, share: float
) -> None:
    """A guest's time is among its user's already, and waiting for a disk is no work."""
    stat = tmp_path / "stat"
    assert cores_at_work(Kernel(stat, work, idle), stat) == pytest.approx(share * _CORES)


def test_without_proc_the_load_average_answers(tmp_path: Path) -> None:
    assert cores_at_work(HandClock(), tmp_path / "none") >= 0
