"""Renders a snapshot for a terminal, with rich: first who the worker is, then what it does.

Owns: nothing; a snapshot in, a renderable out.
Thread: main, in `streamlabel top`.
Must not import: kafka, torch.

Labels, topics and texts come from elsewhere: they are never parsed as markup, and their control
characters are made visible.
"""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from worker.http.client import Snapshot
from worker.http.label_colours import OTHERS, label_colour
from worker.http.terminal_models import models_and_routes
from worker.http.terminal_parts import (
    bars,
    count,
    elapsed,
    listed,
    number,
    panel,
    percent,
    plain,
    side_by_side,
    time,
)
from worker.http.terminal_posts import last_posts

WIDE: Final = 96  # columns; panels stand side by side from here on
_REASON_LENGTH: Final = 300
_COMMAND_LENGTH: Final = 1_000
_TEXT_LENGTH: Final = 120
_LABELS: Final = 12  # shown, the most frequent ones
_PARTITIONS: Final = 8  # shown, those with the most lag
_DEAD_LETTERS: Final = 3  # shown, the last ones
_STEPS: Final = "▁▂▃▄▅▆▇█"
_AGED: Final = 5.0  # seconds without an outcome, after which its age is told


def screen(snapshot: Snapshot, width: int, failure: str = "") -> RenderableType:
    """Render the whole screen.

    Args:
        snapshot: the newest snapshot.
        width: columns.
        failure: why no newer snapshot comes; empty while they do.
    """
    several = models_and_routes(snapshot)
    left = [_labels(snapshot), *several, _stages(snapshot), _dead_letters(snapshot)]
    right = [_rates(snapshot), _partitions(snapshot), _group(snapshot)]
    panels = side_by_side(left, right) if width >= WIDE else Group(*left, *right)
    return Group(
        _identity(snapshot),
        _state(snapshot, failure),
        _figures(snapshot, width),
        panels,
        last_posts(snapshot, width),
    )


def line(snapshot: Snapshot) -> str:
    """Render one line, for pipes and logs."""
    totals, rates, lag = snapshot["totals"], snapshot["rates"], snapshot["lag"]
    facts = (
        f"{number(rates['arriving'])} arriving/s",
        f"{number(rates['labelled'])} labelled/s",
        f"p99 {time(snapshot['latency']['p99'])}",
        f"lag {_records(lag)}",
        _outlook(lag),
        f"{number(totals['published'])} labelled",
        count(totals["dead_lettered"], "dead letter"),
        plain(", ".join(snapshot["worker"]["states"])),
    )
    return ", ".join(filter(None, facts))


def _identity(snapshot: Snapshot) -> RenderableType:
    who = snapshot["identity"]
    inputs = f"topics like {who['pattern']}" if who["pattern"] else listed(who["inputs"])
    facts = (
        f"group {plain(who['group'])}",
        f"broker {listed(who['brokers'])}",
        f"host {plain(who['host'])}",
        f"up {elapsed((snapshot['at'] - who['started_at']) / 1000)}",
        plain(who["delivery"]).replace("_", " "),
        count(who["processes"], "worker"),
    )
    text = Text.assemble((plain(inputs, 120), "bold"), " → ", (plain(who["output"]), "bold"))
    return text.append(f"  {' · '.join(facts)}", "dim")


def _state(snapshot: Snapshot, failure: str) -> RenderableType:
    worker = snapshot["worker"]
    model = worker["model"]
    facts = [model.get(name, "") for name in ("model", "engine", "dtype", "device")]
    text = Text(" · ".join(plain(fact) for fact in facts if fact) or "loading the model")
    text.append(f"  streamlabel {plain(worker['version'])}", "dim")
    healthy = worker["live"] and worker["ready"]
    if failure:
        text.append(f"\n● {plain(failure, _REASON_LENGTH)}", "bold red")
    else:
        text.append(f"  ● {plain(', '.join(worker['states']))}", "green" if healthy else "bold red")
        if not healthy:
            text.append(f"  {plain(worker['reason'], _REASON_LENGTH)}")
    for process in snapshot["workers"]:
        if not process["ready"]:
            reason = plain(process["reason"], _REASON_LENGTH)
            text.append(f"\nworker {number(process['slot'])}: {reason}", "red")
    return text


def _figures(snapshot: Snapshot, width: int) -> RenderableType:
    latency, lag, totals = snapshot["latency"], snapshot["lag"], snapshot["totals"]
    rates = snapshot["rates"]
    figures = [
        (number(rates["arriving"]), "arriving/s"),
        (number(rates["labelled"]), "labelled/s"),
        (_records(lag), "lag"),
        *([(outlook, "")] if (outlook := _outlook(lag)) else []),
        *((time(latency[name]), name) for name in ("p50", "p95", "p99")),
        (number(totals["in_flight"]), "in flight"),
        (number(totals["published"]), "labelled"),
        (number(totals["dead_lettered"]), "dead"),
    ]
    per_row = (len(figures) + 1) // 2 if width >= WIDE else max(1, width // 24)
    grid = Table.grid(padding=(0, 3))
    for begin in range(0, len(figures), per_row):
        row = figures[begin : begin + per_row]
        grid.add_row(*(Text.assemble((value, "bold"), f" {name}") for value, name in row))
    return Panel(Group(grid, _run(snapshot)), border_style="dim")


def _run(snapshot: Snapshot) -> RenderableType:
    """Tell what happened since the start, with the age of the last outcome if it is old."""
    run, last_at = snapshot["run"], snapshot["last_at"]
    if last_at is None:
        return Text("nothing labelled yet", "dim")
    age = (snapshot["at"] - last_at) / 1000
    text = Text(f"last outcome {elapsed(age)} ago; " if age > _AGED else "", "dim")
    return text.append(
        f"since the start {number(run['labelled'])}/s over the {elapsed(run['busy_s'])} with "
        f"outcomes, peak {number(run['highest'])}/s, p99 {time(run['latency']['p99'])}",
        "dim",
    )


def _records(lag: Snapshot) -> str:
    return "-" if lag["records"] is None else count(lag["records"], "record")


def _outlook(lag: Snapshot) -> str:
    """Tell when the lag will be zero; nothing if that is not known."""
    seconds = lag["until_zero_s"]
    if seconds:
        return f"zero in {elapsed(seconds)}"
    return {"none": "caught up", "growing": "growing", "steady": "steady"}.get(lag["trend"], "")


def _rates(snapshot: Snapshot) -> RenderableType:
    """Render the last minute's texts a second as a line of blocks."""
    rates = [rate or 0.0 for rate in snapshot["minute"]]
    highest = max(rates, default=0.0) or 1.0
    blocks = "".join(_STEPS[round(rate / highest * (len(_STEPS) - 1))] for rate in rates)
    return panel("labelled a second, last minute", Text(blocks or "none yet", "dark_cyan"))


def _labels(snapshot: Snapshot) -> RenderableType:
    labels, rest = snapshot["labels"], snapshot["others"]
    total = sum(labels.values()) + rest["total"] or 1
    ordered = sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(name, value, label_colour(name)) for name, value in ordered[:_LABELS]]
    more = len(ordered) - len(rows) + rest["labels"]
    if more:
        value = rest["total"] + sum(value for _, value in ordered[_LABELS:])
        rows.append((count(more, "other"), value, OTHERS))
    grid = bars(
        (name, value / total, f"{number(value)}  {percent(value / total, 1)}", colour)
        for name, value, colour in rows
    )
    return panel("labels since the start", Group(grid, _drift(snapshot)))


def _drift(snapshot: Snapshot) -> Text:
    text = Text("drift:", "dim")
    for drift in snapshot["drift"]:
        style = "bold red" if drift["reading"] == "shifted" else "dim"
        text.append(f" {plain(drift['of'])} {drift['index']:.2f} {plain(drift['reading'])}", style)
    return text


def _stages(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    heads = ("stage", "per micro-batch", "of its time", "thread busy")
    grid.add_row(*(Text(head, "dim") for head in heads))
    shares = snapshot["shares"]["stages"]
    for stage in snapshot["stages"]:
        share = shares.get(stage["name"])
        whole = percent(None if share is None else share / 100)
        busy = percent(stage["busy"])
        grid.add_row(Text(plain(stage["name"])), time(stage["seconds"]), whole, busy)
    batches = snapshot["batches"]
    padding = f"padding {percent(batches['padding'], 1)}"
    grid.add_row(Text("records", "dim"), number(batches["records"]), padding)
    return panel("time by stage", grid)


def _partitions(snapshot: Snapshot) -> RenderableType:
    rows = sorted(snapshot["lag"]["partitions"], key=lambda row: -row["records"])[:_PARTITIONS]
    highest = max((row["records"] for row in rows), default=0) or 1
    grid = bars(
        (
            f"{row['topic']} {row['partition']}",
            row["records"] / highest,
            number(row["records"]),
            "",
        )
        for row in sorted(rows, key=lambda row: (row["topic"], row["partition"]))
    )
    return panel("lag by partition, records", grid if rows else Text("none assigned", "dim"))


def _dead_letters(snapshot: Snapshot) -> RenderableType:
    dead = snapshot["dead_letters"]
    if not dead["by_reason"]:
        return panel("dead letters since the start", Text("none", "dim"))
    grid = Table.grid(padding=(0, 2))
    for reason, value in dead["by_reason"].items():
        grid.add_row(Text(plain(reason)), Text(number(value), "red"))
    parts: list[RenderableType] = [grid]
    for letter in dead["latest"][:_DEAD_LETTERS]:
        place = f"{plain(letter['topic'])}/{letter['partition']}/{letter['offset']}"
        message = plain(letter["message"], _TEXT_LENGTH)
        parts.append(Text(f"{plain(place, 300)}  {message}", "dim"))
    needs = "".join(f"{plain(name)}=... " for name in dead["command_needs"])
    parts.append(Text(f"{needs}{plain(dead['command'], _COMMAND_LENGTH)}"))
    return panel("dead letters since the start", Group(*parts))


def _group(snapshot: Snapshot) -> RenderableType:
    changes, totals = snapshot["rebalances"], snapshot["totals"]
    rows = [
        *((f"rebalances, {kind}", number(value)) for kind, value in changes.items()),
        ("repeated texts, not sent to the model", number(totals["cached"])),
        ("texts truncated to the model's length", number(totals["truncated"])),
        ("processes restarted", number(totals["restarts"])),
    ]
    rows += [
        (f"model since {elapsed((snapshot['at'] - model['since']) / 1000)}", plain(model["name"]))
        for model in snapshot["models"][:2]
    ]
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(plain(name)), Text(value))
    return panel("group and process", grid)
