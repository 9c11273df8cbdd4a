"""What a person sees of the demo: a live screen in a terminal, plain lines elsewhere.

Owns: turning a `Tally` into something to look at, and making untrusted texts harmless: they are
shown without control characters and never parsed for markup. Runs on: the demo's main thread; no
refresh thread. Must not import: kafka, torch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from worker.clock import Clock
from worker.demo.tally import Labelled, Tally

WIDTH: Final = 100
_FRAME_S: Final = 0.12
_LINE_S: Final = 2.0
_LONGEST: Final = 200  # characters of a text that are worth cleaning for one line
_BAR: Final = 60
_COLOURS: Final = {"POSITIVE": "#4fc38a", "NEGATIVE": "#ee7a5e"}
_OTHERS: Final = ("deep_sky_blue1", "gold1", "medium_purple1", "turquoise2", "hot_pink")


def harmless(text: str) -> str:
    """One line without anything that a terminal would act upon.

    Controls, bidirectional overrides, zero-width and unassigned characters go; runs of blanks
    become one.
    """
    spaced = " ".join(text[:_LONGEST].split())
    return "".join(c for c in spaced if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Cn"})


class View(Protocol):
    """Where the demo tells how it goes."""

    def say(self, line: str) -> None: ...
    def show(self, tally: Tally) -> None: ...
    def close(self) -> None: ...


class PlainView:
    """A line now and then, for logs and pipes."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._next = 0.0

    def say(self, line: str) -> None:
        """One line of prose."""
        self._console.print(Text(line), soft_wrap=True)

    def show(self, tally: Tally) -> None:
        """Print where the run stands, unless it was printed a moment ago."""
        now = self._clock.monotonic()
        if now >= self._next or tally.finished:
            self._next = now + _LINE_S
            self.say(
                f"{tally.answered:,} of {tally.total:,} done, {tally.rate():,.0f} texts/s, "
                f"{tally.waiting:,} waiting, {sum(tally.reasons.values())} dead letters"
            )

    def close(self) -> None:
        """Nothing to tidy up."""


class LiveView:
    """A screen that is redrawn in place; its last picture stays."""

    def __init__(self, console: Console, clock: Clock, headline: str) -> None:
        self._console = console
        self._clock = clock
        self._headline = headline
        self._live: Live | None = None
        self._next = 0.0

    def say(self, line: str) -> None:
        """One line of prose, above the screen."""
        self._console.print(Text.assemble(("· ", "cyan"), line), soft_wrap=True)

    def show(self, tally: Tally) -> None:
        """Draw, unless that was done a moment ago."""
        now = self._clock.monotonic()
        if now < self._next and not tally.finished:
            return
        self._next = now + _FRAME_S
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(frame(tally, self._headline), refresh=True)

    def close(self) -> None:
        """Leave the last picture and give the cursor back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def frame(tally: Tally, headline: str) -> RenderableType:
    """One picture of the run."""
    return Group(
        Rule(Text(headline, style="bold"), style="grey37", align="left"),
        Text(),
        _progress(tally),
        Text(),
        _numbers(tally),
        Text(),
        _mix(tally),
        Text(),
        _posts(tally),
        Rule(style="grey37"),
    )


def _progress(tally: Tally) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right")
    bar = ProgressBar(tally.total, tally.answered, complete_style="cyan", finished_style="cyan")
    line.add_row(bar, Text(f"{tally.answered:,} of {tally.total:,}", style="bold"))
    return line


def _numbers(tally: Tally) -> RenderableType:
    rate = tally.texts_per_second() if tally.finished else tally.rate()
    half = tally.latency_ms(0.5)
    shown = {
        "texts/s": f"{rate:,.0f}",
        "waiting": f"{tally.waiting:,}",
        "labelled": f"{sum(tally.labels.values()):,}",
        "dead letters": f"{sum(tally.reasons.values()):,}",
        "end to end, p50": "-" if half is None else duration(half),
    }
    grid = Table.grid(expand=True)
    for _ in shown:
        grid.add_column(ratio=1)
    grid.add_row(*(Text(value, style="bold cyan") for value in shown.values()))
    grid.add_row(*(Text(name, style="grey62") for name in shown))
    return grid


def _mix(tally: Tally) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    whole = sum(tally.labels.values()) or 1
    for label, number in sorted(tally.labels.items()):
        share = number / whole
        grid.add_row(
            Text(harmless(label), style=f"bold {_colour(label)}"),
            Text(f"{share:4.0%}"),
            Text("━" * round(_BAR * share) or "╸", style=f"bold {_colour(label)}"),
        )
    return grid


def _posts(tally: Tally) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    # The one column that gives way.
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for cells in map(_post, tally.last):
        table.add_row(*cells)
    return table


def _post(post: Labelled) -> Iterator[Text]:
    # Faint where the model is unsure: a neutral text near 0.5 should not shout.
    sure = post.score >= 0.75
    style = _colour(post.label) if sure else f"dim {_colour(post.label)}"
    yield Text(harmless(post.label), style=style)
    yield Text(f"{post.score:.2f}", style=style)
    yield Text(harmless(post.text), style="" if sure else "dim")


def _colour(label: str) -> str:
    known = _COLOURS.get(label.upper())
    return known or _OTHERS[sum(label.encode("utf-8", "replace")) % len(_OTHERS)]


def duration(milliseconds: float) -> str:
    """As people say it: `84 ms`, `5.2 s`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s"
