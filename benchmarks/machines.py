"""The folders of `benchmarks/results/`: one for each machine.

Owns: their names, and reading their files.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks.engines.figures import Engines, engines
from benchmarks.recorded import RESULTS, Formats, Peers, Recorded, ScaleOut, Variants, results
from worker.bench.figures import BenchResult, read
from worker.bench.machine import processor
from worker.clock import SystemClock
from worker.core.counted import counted
from worker.limits import cores

# The feature that decides the speed of matrix products most, the best first.
_RANK: Final = (
    "amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2",
    "sve", "i8mm", "bf16", "asimd",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The results in one folder.

    Each is None if its file is missing.
    """

    folder: Path

    @cached_property
    def bench(self) -> BenchResult | None:
        """The reference model in the number type that `model.dtype = "auto"` chooses."""
        path = self.folder / "bench.json"
        return read(path) if path.is_file() else None

    @cached_property
    def benches(self) -> tuple[BenchResult, ...]:
        """All models and number types; the reference comes first."""
        others = map(read, sorted(self.folder.glob("bench-*.json")))
        return (*([self.bench] if self.bench else ()), *others)

    @property
    def peers(self) -> Peers | None:
        """Other programs that do the same work."""
        return self._results[0]

    @property
    def scale(self) -> ScaleOut | None:
        """Growing numbers of workers."""
        return self._results[1]

    @property
    def variants(self) -> Variants | None:
        """The effect of settings."""
        return self._results[2]

    @property
    def formats(self) -> Formats | None:
        """The cost of a record in each format."""
        return self._results[3]

    @cached_property
    def engines(self) -> Engines | None:
        """Our engine and others with the same texts."""
        return engines(self.folder)

    @cached_property
    def _results(self) -> Recorded:
        return results(self.folder)

    @cached_property
    def gpu(self) -> Mapping[str, Any] | None:
        """The figures of `benchmarks.gpu`."""
        return self._json("gpu")

    def path(self, delivery: str) -> Mapping[str, Any] | None:
        """Return the figures of `benchmarks.path` for one guarantee."""
        return self._json(f"path_{delivery}")

    @property
    def title(self) -> str:
        """Processor, cores and best feature, or the GPU."""
        described = self._described()
        if described is None:
            return str((self.gpu or {}).get("machine", {}).get("gpu") or self.folder.name)
        cpu, number, features = described
        best = best_feature(features)
        return f"{cpu}, {counted(number, 'core')}" + (f", {best}" if best else "")

    @property
    def date(self) -> str:
        """The latest date of its results; empty if none has a date."""
        dates = [result.date for result in self._dated()]
        dates += [model.date for model in self.engines.models] if self.engines else []
        dates.append(str((self.gpu or {}).get("date", "")))
        return max(dates)

    def _dated(self) -> list[BenchResult | Peers | ScaleOut | Variants | Formats]:
        return [result for result in (*self.benches, *self._results) if result]

    def _described(self) -> tuple[str, int, tuple[str, ...]] | None:
        for result in (*self._dated(), *([self.engines] if self.engines else [])):
            machine = result.machine if isinstance(result, BenchResult) else result
            return machine.cpu, machine.cores, machine.features
        return None

    def _json(self, name: str) -> Mapping[str, Any] | None:
        path = self.folder / f"{name}.json"
        figures: Mapping[str, Any] | None = (
            json.loads(path.read_bytes()) if path.is_file() else None
        )
        return figures


def machines(root: Path = RESULTS) -> list[Machine]:
    """Return the machines with results, the one that was measured last first."""
    folders = sorted(path for path in root.glob("*") if any(path.glob("*.json")))
    return sorted(map(Machine, folders), key=lambda machine: machine.date, reverse=True)


def here(root: Path = RESULTS) -> Path:
    """Return the folder of this machine, made if it is missing."""
    folder = root / folder_name(*processor(), cores())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder_name(cpu: str, features: tuple[str, ...], number: int) -> str:
    """Return a machine's folder, such as `amd-epyc-2-cores-avx512-bf16`."""
    name = re.sub(r"\([^)]*\)|\bprocessor\b|\bcpu\b|@.*", " ", cpu, flags=re.IGNORECASE)
    words = f"{name} {counted(number, 'core')} {best_feature(features)}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def best_feature(features: tuple[str, ...]) -> str:
    """Return the feature that speeds up matrix products most; empty if there is none."""
    return next((feature for feature in _RANK if feature in features), "")


def provenance() -> dict[str, Any]:
    """Return the members that each result has: the machine, the date and the commit."""
    cpu, features = processor()
    today = datetime.fromtimestamp(SystemClock().wall_ms() / 1000, UTC).date().isoformat()
    machine = {"cpu": cpu, "cores": cores(), "features": features}
    return machine | {"date": today, "commit": commit()}


def commit() -> str:
    """Return the short hash of the source's commit, or an empty string outside of Git."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
