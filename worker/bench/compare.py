"""Compares the plans of several benches: of other models, number types or machines.

Owns: the comparison; it reads the files.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from worker.bench.figures import BenchResult, read
from worker.bench.plan import CapacityPlan, plan
from worker.core.counted import counted
from worker.core.visible import visible
from worker.errors import StreamlabelError


@dataclass(frozen=True)
class Compared:
    """One bench, and its plan or the reason that there is none."""

    file: Path
    bench: BenchResult
    plan: CapacityPlan | None
    refused: str | None

    @property
    def machine(self) -> str:
        """Processor and cores."""
        return f"{self.bench.machine.cpu}, {counted(self.bench.machine.cores, 'core')}"

    def busy_cores(self, rate: float) -> float | None:
        """Return the cores that all workers keep busy at `rate` texts/s, or None if unknown."""
        cpu = self.bench.end_to_end.cpu
        return rate * cpu.worker / 1e6 if cpu else None


def compared(files: Sequence[Path], rate: float, goal_ms: float) -> list[Compared]:
    """Return every bench with its plan, the fewest workers first; without a plan last.

    A bench that was too short for a plan has none, too. Raises SettingsError if a file holds no
    figures.
    """
    results = [_compare(file, rate, goal_ms) for file in files]
    return sorted(results, key=lambda one: one.plan.workers if one.plan else float("inf"))


def _compare(file: Path, rate: float, goal_ms: float) -> Compared:
    bench = read(file)
    try:
        return Compared(file, bench, plan(bench, rate, goal_ms), None)
    except StreamlabelError as error:
        return Compared(file, bench, None, str(error))


def comparison_table(results: Sequence[Compared], rate: float) -> Table:
    """Return a row for each bench."""
    table = Table(box=None, pad_edge=False)
    for name in ("model", "dtype", "machine"):
        table.add_column(name, overflow="fold")  # a name that is cut off names nothing
    for name in ("workers", "texts/s each", "p99", "busy cores"):
        table.add_column(name, justify="right")
    table.add_column("figures", overflow="fold")
    for one in results:
        busy = one.busy_cores(rate)
        figures: tuple[str, ...] = ("-", "-", "-")
        if made := one.plan:
            each = made.capacity * made.utilisation
            figures = (str(made.workers), f"{each:.1f}", f"{made.p99_ms:.0f} ms")
        table.add_row(
            visible(one.bench.model.name),
            one.bench.model.dtype,
            one.machine,
            *figures,
            "-" if busy is None else f"{busy:.1f}",
            visible(str(one.file)),
        )
    return table
