"""The demo's display: a live screen in a terminal, plain lines elsewhere.

Owns: drawing a `Tally`, and sanitising untrusted texts: they are shown without control characters
    and never parsed for markup.
Thread: main; there is no refresh thread.
Must not import: kafka, torch.
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
from worker.core.counted import counted
from worker.demo.tally import Labelled, Tally

WIDTH: Final = 100
_FRAME_S: Final = 0.12
_LINE_S: Final = 2.0
_WAIT_LINE_S: Final = 3.0
_MAX_CHARACTERS: Final = 200  # of a text: no line shows more
_BAR_WIDTH: Final = 60
_COLOURS: Final = {"POSITIVE": "#4fc38a", "NEGATIVE": "#ee7a5e"}
_OTHERS: Final = ("deep_sky_blue1", "gold1", "medium_purple1", "turquoise2", "hot_pink")


def sanitised(text: str) -> str:
    """Return a text as one line that can't control a terminal.

    Control characters, bidirectional overrides, zero-width and unassigned characters are removed;
    runs of white space become one space.
    """
    spaced = " ".join(text[:_MAX_CHARACTERS].split())
    return "".join(c for c in spaced if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Cn"})


class View(Protocol):
    """Shows the progress of a demo."""

    def say(self, message: str) -> None: ...
    def wait(self, activity: str, seconds: float) -> None: ...
    def show(self, tally: Tally) -> None: ...
    def close(self) -> None: ...


class PlainView:
    """Prints a line every few seconds, for logs and pipes."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._next_line = 0.0
        self._next_wait_line = _WAIT_LINE_S

    def say(self, message: str) -> None:
        """Print a message."""
        self._console.print(Text(message), soft_wrap=True)

    def wait(self, activity: str, seconds: float) -> None:
        """Print that an activity has taken so many seconds, every few seconds."""
        if seconds < _WAIT_LINE_S:
            self._next_wait_line = _WAIT_LINE_S
        elif seconds >= self._next_wait_line:
            self._next_wait_line = seconds + _WAIT_LINE_S
            self.say(f"{activity} ... {seconds:.0f} s")

    def show(self, tally: Tally) -> None:
        """Print the counts, unless they were printed less than two seconds ago."""
        now = self._clock.monotonic()
        if now >= self._next_line or tally.finished:
            self._next_line = now + _LINE_S
            self.say(
                f"{tally.answered:,} of {tally.total:,} done, {_times(tally)}, "
                f"{tally.rate():,.0f} texts/s, {tally.waiting:,} waiting, "
                f"{counted(sum(tally.reasons.values()), 'dead letter')}"
            )

    def close(self) -> None:
        """Do nothing: the lines stay."""


class LiveView:
    """Redraws a screen in place; the last frame stays."""

    def __init__(self, console: Console, clock: Clock, headline: str) -> None:
        self._console = console
        self._clock = clock
        self._headline = headline
        self._live: Live | None = None
        self._frame: RenderableType | None = None
        self._next_draw = 0.0

    def say(self, message: str) -> None:
        """Print a message above the screen."""
        self._console.print(Text.assemble(("· ", "cyan"), message), soft_wrap=True)

    def wait(self, activity: str, seconds: float) -> None:
        """Show below the last frame that an activity has taken so many seconds."""
        if self._clock.monotonic() >= self._next_draw:
            line = Text(f"  {activity} ... {seconds:.0f} s", style="grey62")
            self._draw(line if self._frame is None else Group(self._frame, line))

    def show(self, tally: Tally) -> None:
        """Draw a frame, unless one was drawn a moment ago."""
        if self._clock.monotonic() >= self._next_draw or tally.finished:
            self._frame = frame(tally, self._headline)
            self._draw(self._frame)

    def close(self) -> None:
        """Leave the last frame on the screen and restore the cursor; idempotent."""
        if self._live is not None:
            self._live.update(self._frame or Text(), refresh=True)
            self._live.transient = self._frame is None
            self._live.stop()
        self._live = self._frame = None

    def _draw(self, content: RenderableType) -> None:
        self._next_draw = self._clock.monotonic() + _FRAME_S
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(content, refresh=True)


def frame(tally: Tally, headline: str) -> RenderableType:
    """Return the screen for the current counts."""
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
    counts = Text(f"{tally.answered:,} of {tally.total:,}", style="bold")
    line.add_row(bar, counts.append(f"  {_times(tally)}", style="not bold grey62"))
    return line


def _times(tally: Tally) -> str:
    """Return the elapsed time, and the remaining one once it can be estimated."""
    remaining = tally.remaining_s()
    elapsed = f"{tally.elapsed_s():.0f} s"
    return elapsed if remaining is None or tally.finished else f"{elapsed}, {remaining:.0f} s left"


def _numbers(tally: Tally) -> RenderableType:
    rate = tally.texts_per_second() if tally.finished else tally.rate()
    median = tally.latency_ms(0.5)
    figures = {
        "texts/s": f"{rate:,.0f}",
        "waiting": f"{tally.waiting:,}",
        "labelled": f"{sum(tally.labels.values()):,}",
        "dead letters": f"{sum(tally.reasons.values()):,}",
        "end to end, p50": "-" if median is None else duration(median),
    }
    grid = Table.grid(expand=True)
    for _ in figures:
        grid.add_column(ratio=1)
    grid.add_row(*(Text(value, style="bold cyan") for value in figures.values()))
    grid.add_row(*(Text(name, style="grey62") for name in figures))
    return grid


def _mix(tally: Tally) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    labelled = sum(tally.labels.values()) or 1
    for label, number in sorted(tally.labels.items()):
        share = number / labelled
        grid.add_row(
            Text(sanitised(label), style=f"bold {_colour(label)}"),
            Text(f"{share:4.0%}"),
            Text("━" * round(_BAR_WIDTH * share) or "╸", style=f"bold {_colour(label)}"),
        )
    return grid


def _posts(tally: Tally) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    # Only this column shrinks on a narrow terminal.
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for cells in map(_post, tally.last):
        table.add_row(*cells)
    return table


def _post(post: Labelled) -> Iterator[Text]:
    # Dim if the model is unsure: a neutral text scores near 0.5.
    confident = post.score >= 0.75
    style = _colour(post.label) if confident else f"dim {_colour(post.label)}"
    yield Text(sanitised(post.label), style=style)
    yield Text(f"{post.score:.2f}", style=style)
    yield Text(sanitised(post.text), style="" if confident else "dim")


def _colour(label: str) -> str:
    known = _COLOURS.get(label.upper())
    return known or _OTHERS[sum(label.encode("utf-8", "replace")) % len(_OTHERS)]


def duration(milliseconds: float) -> str:
    """Format a duration, as in `84 ms` or `5.2 s`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s"
