"""A worker's picture as a terminal shows it. Pure: a picture in, something that rich prints out.

Foreign words (labels, topics, texts) are never parsed for markup, and nothing in them steers the
terminal. Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.core.visible import excerpt

Shown = dict[str, Any]

WIDE: Final = 96  # columns from which on panels stand side by side
_BAR: Final = 18
_LABEL: Final = 24
_TEXT: Final = 60
_ROWS: Final = 8
_STEPS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = ("dark_cyan", "orange3", "medium_purple", "chartreuse3", "hot_pink3", "gold3")


def screen(shown: Shown, width: int, gone: str = "") -> RenderableType:
    """All of it.

    Args:
        shown: the newest picture.
        width: columns.
        gone: why no newer one comes, if so.
    """
    colours = {name: _COLOURS[n % len(_COLOURS)] for n, name in enumerate(shown["labels"])}
    left = [_labels(shown, colours), _stages(shown), _dead_letters(shown)]
    right = [_rates(shown), _partitions(shown), _group(shown)]
    panels = _side_by_side(left, right) if width >= WIDE else Group(*left, *right)
    return Group(
        _headline(shown, gone), _figures(shown, width), panels, _posts(shown, colours, width)
    )


def line(shown: Shown) -> str:
    """One line of it, for pipes and logs."""
    totals = shown["totals"]
    return (
        f"{_number(shown['texts_per_second'])} texts/s, p99 {_time(shown['latency']['p99'])}, "
        f"lag {_number(shown['lag']['records'])} records, "
        f"{_number(totals['published'])} labelled, {_number(totals['dead_lettered'])} dead letters, "
        f"{_plain(', '.join(shown['worker']['states']))}"
    )


def _headline(shown: Shown, gone: str) -> RenderableType:
    worker = shown["worker"]
    model = worker["model"]
    facts = [model.get(name, "") for name in ("model", "engine", "dtype", "device")]
    words = Text.assemble(("streamlabel ", "bold"), f"{_plain(worker['version'])}  ")
    words.append(" · ".join(_plain(fact) for fact in facts if fact), "dim")
    state = ", ".join(worker["states"])
    good = worker["live"] and worker["ready"]
    if gone:
        words.append(f"\n● {_plain(gone, 300)}", "bold red")
    else:
        words.append(f"   ● {_plain(state)}", "green" if good else "bold red")
        if not good:
            words.append(f"  {_plain(worker['words'], 300)}")
    return words


def _figures(shown: Shown, width: int) -> RenderableType:
    latency, lag, totals = shown["latency"], shown["lag"], shown["totals"]
    told = [
        ("texts/s", _number(shown["texts_per_second"])),
        *((name, _time(latency[name])) for name in ("p50", "p95", "p99")),
        ("lag, records", _number(lag["records"])),
        ("in flight", _number(totals["in_flight"])),
        ("labelled", _number(totals["published"])),
    ]
    in_a_row = len(told) if width >= WIDE else max(1, width // 18)
    grid = Table.grid(padding=(0, 3))
    for begin in range(0, len(told), in_a_row):
        some = told[begin : begin + in_a_row]
        grid.add_row(*(Text.assemble((value, "bold"), f" {name}") for name, value in some))
    return Panel(grid, border_style="dim")


def _rates(shown: Shown) -> RenderableType:
    """The last minute's texts a second, as a line of blocks."""
    rates = [rate or 0.0 for rate in shown["history"]]
    most = max(rates, default=0.0) or 1.0
    blocks = "".join(_STEPS[round(rate / most * (len(_STEPS) - 1))] for rate in rates)
    return _panel("texts/s, last minute", Text(blocks or "nothing yet", "dark_cyan"))


def _labels(shown: Shown, colours: dict[str, str]) -> RenderableType:
    whole = shown["totals"]["published"] or 1
    grid = _bars(
        (name, value / whole, f"{_number(value)}  {value / whole:.1%}", colours[name])
        for name, value in shown["labels"].items()
    )
    said = Text("drift:", "dim")
    for one in shown["drift"]:
        style = "bold red" if one["reading"] == "shifted" else "dim"
        said.append(f" {_plain(one['of'])} {one['index']:.2f} {_plain(one['reading'])}", style)
    return _panel("labels", Group(grid, said))


def _stages(shown: Shown) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(*(Text(head, "dim") for head in ("stage", "a micro-batch", "busy")))
    for stage in shown["stages"]:
        busy = "-" if stage["busy"] is None else f"{stage['busy']:.0%}"
        grid.add_row(Text(_plain(stage["name"])), _time(stage["seconds"]), busy)
    batches = shown["batches"]
    padding = "-" if batches["padding"] is None else f"{batches['padding']:.1%}"
    grid.add_row(Text("records", "dim"), _number(batches["records"]), f"padding {padding}")
    return _panel("where time goes, last 30 s", grid)


def _partitions(shown: Shown) -> RenderableType:
    some = sorted(shown["lag"]["partitions"], key=lambda one: -one["records"])[:_ROWS]
    most = max((one["records"] for one in some), default=0) or 1
    grid = _bars(
        (f"{one['topic']} {one['partition']}", one["records"] / most, _number(one["records"]), "")
        for one in sorted(some, key=lambda one: (one["topic"], one["partition"]))
    )
    return _panel("lag by partition, records", grid if some else Text("none assigned", "dim"))


def _dead_letters(shown: Shown) -> RenderableType:
    reasons = shown["dead_letters"]
    grid = Table.grid(padding=(0, 2))
    for reason, number in reasons.items():
        grid.add_row(Text(_plain(reason)), Text(_number(number), "red"))
    return _panel("dead letters", grid if reasons else Text("none", "dim"))


def _group(shown: Shown) -> RenderableType:
    changes, totals = shown["rebalances"], shown["totals"]
    told = [
        *((f"partitions {kind}", _number(number)) for kind, number in changes.items()),
        ("answered from the cache", _number(totals["cached"])),
        ("cut to the model's length", _number(totals["truncated"])),
        ("processes restarted", _number(totals["restarts"])),
    ]
    grid = Table.grid(padding=(0, 2))
    for name, value in told:
        grid.add_row(Text(_plain(name)), value)
    return _panel("group and process", grid)


def _posts(shown: Shown, colours: dict[str, str], width: int) -> RenderableType:
    room = max(20, min(_TEXT * 2, width - 44))
    grid = Table.grid(padding=(0, 2))
    for post in shown["posts"]:
        text = post.get("text")
        words = Text(_plain(text, room)) if text else Text(_unread(post), "dim")
        if "scores" in post:
            label, score = post["scores"][0]
            grid.add_row(Text(_plain(label), colours.get(label, "")), Text(f"{score:.1%}"), words)
        else:
            grid.add_row(Text(_plain(post["reason"]), "red"), Text(""), words)
    return _panel("last posts, a sample", grid if shown["posts"] else Text("none yet", "dim"))


def _unread(post: Shown) -> str:
    where = _plain(post["id"])
    return f"{post['characters']} characters, {where}" if "characters" in post else where


def _bars(rows: Iterable[tuple[str, float, str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, share, words, colour in rows:
        bar = ProgressBar(
            1.0,
            min(1.0, share),
            _BAR,
            complete_style=colour or "dark_cyan",
            finished_style=colour or "dark_cyan",
        )
        grid.add_row(Text(_plain(name)), bar, Text(words))
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


def _plain(text: object, most: int = _LABEL * 2) -> str:
    return excerpt(str(text), most)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
