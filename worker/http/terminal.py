"""Renders a snapshot for a terminal, with rich.

Owns: nothing; a snapshot in, a renderable out.
Thread: main, in `streamlabel top`.
Must not import: kafka, torch.

Labels, topics and texts come from elsewhere: they are never parsed as markup, and their control
characters are made visible.
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
from worker.http.client import Snapshot

WIDE: Final = 96  # columns; panels stand side by side from here on
_BAR_WIDTH: Final = 18
_NAME_LENGTH: Final = 48
_REASON_LENGTH: Final = 300
_TEXT_LENGTH: Final = 120
_PARTITIONS: Final = 8  # shown, those with the most lag
_STEPS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = ("dark_cyan", "orange3", "medium_purple", "chartreuse3", "hot_pink3", "gold3")


def screen(snapshot: Snapshot, width: int, failure: str = "") -> RenderableType:
    """Render the whole screen.

    Args:
        snapshot: the newest snapshot, with the last minute's rates in `history`.
        width: columns.
        failure: why no newer snapshot comes; empty while they do.
    """
    names = enumerate(snapshot["labels"])
    colours = {name: _COLOURS[n % len(_COLOURS)] for n, name in names}
    left = [_labels(snapshot, colours), _stages(snapshot), _dead_letters(snapshot)]
    right = [_rates(snapshot), _partitions(snapshot), _group(snapshot)]
    panels = _side_by_side(left, right) if width >= WIDE else Group(*left, *right)
    return Group(
        _headline(snapshot, failure),
        _figures(snapshot, width),
        panels,
        _posts(snapshot, colours, width),
    )


def line(snapshot: Snapshot) -> str:
    """Render one line, for pipes and logs."""
    totals = snapshot["totals"]
    return (
        f"{_number(snapshot['texts_per_second'])} texts/s, "
        f"p99 {_time(snapshot['latency']['p99'])}, "
        f"lag {_count(snapshot['lag']['records'], 'record')}, "
        f"{_number(totals['published'])} labelled, "
        f"{_count(totals['dead_lettered'], 'dead letter')}, "
        f"{_plain(', '.join(snapshot['worker']['states']))}"
    )


def _headline(snapshot: Snapshot, failure: str) -> RenderableType:
    worker = snapshot["worker"]
    model = worker["model"]
    facts = [model.get(name, "") for name in ("model", "engine", "dtype", "device")]
    headline = Text.assemble(("streamlabel ", "bold"), f"{_plain(worker['version'])}  ")
    headline.append(" · ".join(_plain(fact) for fact in facts if fact), "dim")
    state = ", ".join(worker["states"])
    healthy = worker["live"] and worker["ready"]
    if failure:
        headline.append(f"\n● {_plain(failure, _REASON_LENGTH)}", "bold red")
    else:
        headline.append(f"   ● {_plain(state)}", "green" if healthy else "bold red")
        if not healthy:
            headline.append(f"  {_plain(worker['reason'], _REASON_LENGTH)}")
    return headline


def _figures(snapshot: Snapshot, width: int) -> RenderableType:
    latency, lag, totals = snapshot["latency"], snapshot["lag"], snapshot["totals"]
    figures = [
        ("texts/s", _number(snapshot["texts_per_second"])),
        *((name, _time(latency[name])) for name in ("p50", "p95", "p99")),
        ("lag", _count(lag["records"], "record")),
        ("in flight", _number(totals["in_flight"])),
        ("labelled", _number(totals["published"])),
    ]
    per_row = len(figures) if width >= WIDE else max(1, width // 18)
    grid = Table.grid(padding=(0, 3))
    for begin in range(0, len(figures), per_row):
        row = figures[begin : begin + per_row]
        grid.add_row(*(Text.assemble((value, "bold"), f" {name}") for name, value in row))
    return Panel(grid, border_style="dim")


def _rates(snapshot: Snapshot) -> RenderableType:
    """Render the last minute's texts a second as a line of blocks."""
    rates = [rate or 0.0 for rate in snapshot["history"]]
    highest = max(rates, default=0.0) or 1.0
    blocks = "".join(_STEPS[round(rate / highest * (len(_STEPS) - 1))] for rate in rates)
    return _panel("texts/s, last minute", Text(blocks or "none yet", "dark_cyan"))


def _labels(snapshot: Snapshot, colours: dict[str, str]) -> RenderableType:
    total = snapshot["totals"]["published"] or 1
    grid = _bars(
        (name, value / total, f"{_number(value)}  {value / total:.1%}", colours[name])
        for name, value in snapshot["labels"].items()
    )
    line = Text("drift:", "dim")
    for drift in snapshot["drift"]:
        style = "bold red" if drift["reading"] == "shifted" else "dim"
        line.append(
            f" {_plain(drift['of'])} {drift['index']:.2f} {_plain(drift['reading'])}", style
        )
    return _panel("label mix since the start", Group(grid, line))


def _stages(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(*(Text(head, "dim") for head in ("stage", "per micro-batch", "busy")))
    for stage in snapshot["stages"]:
        busy = "-" if stage["busy"] is None else f"{stage['busy']:.0%}"
        grid.add_row(Text(_plain(stage["name"])), _time(stage["seconds"]), busy)
    batches = snapshot["batches"]
    padding = "-" if batches["padding"] is None else f"{batches['padding']:.1%}"
    grid.add_row(Text("records", "dim"), _number(batches["records"]), f"padding {padding}")
    return _panel("time by stage, last 30 s", grid)


def _partitions(snapshot: Snapshot) -> RenderableType:
    rows = sorted(snapshot["lag"]["partitions"], key=lambda row: -row["records"])[:_PARTITIONS]
    highest = max((row["records"] for row in rows), default=0) or 1
    grid = _bars(
        (
            f"{row['topic']} {row['partition']}",
            row["records"] / highest,
            _number(row["records"]),
            "",
        )
        for row in sorted(rows, key=lambda row: (row["topic"], row["partition"]))
    )
    return _panel("lag by partition, records", grid if rows else Text("none assigned", "dim"))


def _dead_letters(snapshot: Snapshot) -> RenderableType:
    reasons = snapshot["dead_letters"]["by_reason"]
    grid = Table.grid(padding=(0, 2))
    for reason, count in reasons.items():
        grid.add_row(Text(_plain(reason)), Text(_number(count), "red"))
    return _panel("dead letters since the start", grid if reasons else Text("none", "dim"))


def _group(snapshot: Snapshot) -> RenderableType:
    changes, totals = snapshot["rebalances"], snapshot["totals"]
    rows = [
        *((f"rebalances, {kind}", _number(count)) for kind, count in changes.items()),
        ("repeated texts, not sent to the model", _number(totals["cached"])),
        ("texts truncated to the model's length", _number(totals["truncated"])),
        ("processes restarted", _number(totals["restarts"])),
    ]
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(_plain(name)), value)
    return _panel("group and process", grid)


def _posts(snapshot: Snapshot, colours: dict[str, str], width: int) -> RenderableType:
    length = max(20, min(_TEXT_LENGTH, width - 44))
    grid = Table.grid(padding=(0, 2))
    for post in snapshot["posts"]:
        text = post.get("text")
        shown = Text(_plain(text, length)) if text else Text(_without_text(post), "dim")
        if "scores" in post:
            label, score = post["scores"][0]
            grid.add_row(Text(_plain(label), colours.get(label, "")), Text(f"{score:.1%}"), shown)
        else:
            grid.add_row(Text(_plain(post["reason"]), "red"), Text(""), shown)
    return _panel("last posts, a sample", grid if snapshot["posts"] else Text("none yet", "dim"))


def _without_text(post: Snapshot) -> str:
    source = _plain(post["id"])
    return (
        f"{_count(post['characters'], 'character')}, {source}" if "characters" in post else source
    )


def _bars(rows: Iterable[tuple[str, float, str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, share, figure, colour in rows:
        bar = ProgressBar(
            1.0,
            min(1.0, share),
            _BAR_WIDTH,
            complete_style=colour or "dark_cyan",
            finished_style=colour or "dark_cyan",
        )
        grid.add_row(Text(_plain(name)), bar, Text(figure))
    return grid


def _side_by_side(
    left: Sequence[RenderableType], right: Sequence[RenderableType]
) -> RenderableType:
    grid = Table.grid(expand=True)
    for _ in range(2):
        grid.add_column(ratio=1)
    grid.add_row(Group(*left), Group(*right))
    return grid


def _panel(title: str, inner: RenderableType) -> Panel:
    return Panel(inner, title=Text(title, "bold"), title_align="left", border_style="dim")


def _plain(text: object, length: int = _NAME_LENGTH) -> str:
    return excerpt(str(text), length)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _count(value: float, noun: str) -> str:
    return f"{_number(value)} {noun}" + ("" if value == 1 else "s")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
