"""The chart of latency over load, drawn with matplotlib from the extra `bench`.

Owns: the chart; imports matplotlib only when it draws.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from worker.bench.figures import BenchResult
from worker.errors import SettingsError

_FORMATS: Final = (".svg", ".png", ".pdf")
_LINES: Final = (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))


def require_plotting(path: Path) -> None:
    """Raise SettingsError if `draw` can't write this file; called before anything is measured."""
    if path.suffix not in _FORMATS:
        raise SettingsError(f"--plot {path}: the file name must end in {', '.join(_FORMATS)}")
    if find_spec("matplotlib") is None:
        raise SettingsError("--plot needs matplotlib: pip install 'streamlabel[bench]'")


def draw(bench: BenchResult, path: Path) -> None:
    """Write the chart in the format of the file's suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, label in _LINES:
        points = [(load.rate, getattr(load, name)) for load in bench.latency.loads]
        known = [(rate, value) for rate, value in points if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), marker="o", label=label)
    window = bench.engine.configured.window_s * 1000
    axes.axhline(window, linestyle="--", color="grey", label="one full window, engine alone")
    axes.axvline(bench.end_to_end.records_per_s, linestyle=":", color="grey", label="capacity")
    axes.set(xlabel="texts/s (open loop)", ylabel="end to end, ms", yscale="log")
    axes.set_title(f"{bench.model.name}, {bench.model.dtype}, on {bench.machine.cpu}", fontsize=9)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path)
