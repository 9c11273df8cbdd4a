"""Formats numbers, durations and foreign text for a terminal, and draws bars and panels.

Owns: nothing; the parts of which `terminal` makes its screen.
Thread: any; pure.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.core.visible import excerpt

NAME_LENGTH: Final = 48
_NAMES: Final = 3  # topics or brokers
_BAR_WIDTH: Final = 18
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def plain(text: object, length: int = NAME_LENGTH) -> str:
    """Return the beginning of a text, without anything that could control the terminal."""
    return excerpt(str(text), length)


def number(value: float | None) -> str:
    """Return a number with three digits or more, or `-` for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def count(value: float, noun: str) -> str:
    """Return a number of things."""
    return f"{number(value)} {noun}" + ("" if value == 1 else "s")


def time(seconds: float | None) -> str:
    """Return a measured time."""
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def elapsed(seconds: float) -> str:
    """Return a span of time in one or two units, as in `2 min 5 s`."""
    for size, unit, part, smaller in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole} {unit} {rest // part} {smaller}"
    return f"{max(0.0, seconds):.0f} s"


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share as percent, or `-` for none. A small one does not look like none at all."""
    if share is None:
        return "-"
    least = 10.0 ** -(digits + 2)
    return f"<{least:.{digits}%}" if 0 < share < least / 2 else f"{share:.{digits}%}"


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _NAMES
    shown = ", ".join(plain(name) for name in names[:_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def bars(rows: Iterable[tuple[str, float, str, str]]) -> Table:
    """Return a line for each name, share of the longest bar, figure and colour (may be empty)."""
    grid = Table.grid(padding=(0, 2))
    for name, share, figure, colour in rows:
        bar = ProgressBar(
            1.0,
            min(1.0, share),
            _BAR_WIDTH,
            complete_style=colour or "dark_cyan",
            finished_style=colour or "dark_cyan",
        )
        grid.add_row(Text(plain(name)), bar, Text(figure))
    return grid


def side_by_side(left: Sequence[RenderableType], right: Sequence[RenderableType]) -> RenderableType:
    """Return two columns of panels."""
    grid = Table.grid(expand=True)
    for _ in range(2):
        grid.add_column(ratio=1)
    grid.add_row(Group(*left), Group(*right))
    return grid


def panel(title: str, inner: RenderableType) -> Panel:
    """Return a panel with its title."""
    return Panel(inner, title=Text(title, "bold"), title_align="left", border_style="dim")
