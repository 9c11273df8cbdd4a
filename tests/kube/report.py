"""The output of a run: a line as each scenario ends, a table at the end, and a file of figures."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.kube.verdicts import Tally

_HEAD = ("scenario", "time", "stall", "records", "missing", "twice", "reordered", "verdict")
_STALL = _HEAD.index("stall")


@dataclass(frozen=True)
class Line:
    """The end of one scenario.

    Attributes:
        what: what happened, or what did not.
        tally: what the audit found in the time of this scenario; None if nothing was audited.
        broken: a phrase for each broken promise.
    """

    name: str
    what: str
    seconds: float
    tally: Tally | None = None
    broken: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return not self.broken

    @property
    def verdict(self) -> str:
        return "held" if self.held else f"FAILED: {', '.join(self.broken)}"


def line(one: Line) -> str:
    """Return the line that is printed when a scenario ends."""
    figures = [_figure(name, value) for name, value in one.figures.items()]
    told = "; ".join([one.what, *figures])
    counts = _counts(one.tally)
    return f"{one.name}: {told}; {one.seconds:.0f} s{counts}: {one.verdict}"


@contextlib.contextmanager
def step(lines: list[Line], name: str, what: str) -> Iterator[None]:
    """Print and add the line of a step that gets something ready, if it succeeds."""
    begun = time.monotonic()
    yield
    lines.append(Line(name, what, time.monotonic() - begun))
    print(line(lines[-1]), flush=True)


def table(lines: Iterable[Line]) -> str:
    """Return the table of all scenarios; without a stall, it has no column for it."""
    rows = [_HEAD, *map(_row, lines)]
    if {row[_STALL] for row in rows[1:]} == {"-"}:
        rows = [(*row[:_STALL], *row[_STALL + 1 :]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def _row(one: Line) -> tuple[str, ...]:
    tally, stall = one.tally, one.figures.get("longest_stall_s")
    numbers = (
        [f"{n:,}" for n in (tally.records, tally.missing, tally.twice, tally.reordered)]
        if tally
        else ["-"] * 4
    )
    longest = "-" if stall is None else f"{stall:.1f} s"
    return (one.name, f"{one.seconds:.0f} s", longest, *numbers, one.verdict)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *middle, last = row
    columns = [text.rjust(width) for text, width in zip(middle, widths[1:-1], strict=True)]
    return "  ".join([first.ljust(widths[0]), *columns, last])


def write(path: Path, lines: Iterable[Line]) -> None:
    """Write every scenario with its figures as JSON."""
    document: list[dict[str, Any]] = [asdict(one) | {"held": one.held} for one in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _counts(tally: Tally | None) -> str:
    if tally is None:
        return ""
    return (
        f", {tally.records:,} records, {tally.missing} missing, {tally.twice} twice, "
        f"{tally.reordered} reordered"
    )


def _figure(name: str, value: float) -> str:
    """Return a figure in words: `records_per_s`, 80 -> "80 records/s"."""
    if name.endswith("_per_s"):
        return f"{value:g} {name.removesuffix('_per_s')}/s"
    words = name.removesuffix("_s").replace("_", " ")
    return f"{words} {value:g}{' s' if name.endswith('_s') else ''}"
