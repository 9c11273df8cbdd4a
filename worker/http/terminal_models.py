"""Renders several models and the routes for a terminal.

Owns: nothing; a snapshot in, renderables out.
Thread: main, in `streamlabel top`.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from worker.http.client import Snapshot
from worker.http.label_colours import OTHERS, label_colour
from worker.http.terminal_parts import bars, count, number, panel, percent, plain

_LABELS: Final = 4  # of a model, the most frequent ones


def models_and_routes(snapshot: Snapshot) -> Iterator[RenderableType]:
    """Yield a panel for several models, and one for routes; none for what is not in use."""
    # A worker of an earlier version has no such members.
    if models := snapshot.get("each_model"):
        yield panel("several models", Group(*map(_model, models)))
    if routes := snapshot.get("routes"):
        yield panel("routes since the start", _routes(routes))


def _model(model: Snapshot) -> RenderableType:
    facts = [model["facts"].get(name, "") for name in ("model", "engine", "dtype", "device")]
    head = Text.assemble((plain(model["name"]), "bold"), f"  {percent(model['time'])} of the time")
    head.append(f"  {' · '.join(plain(fact) for fact in facts if fact)}", "dim")
    absent = [f"{number(n)} {plain(why).replace('_', ' ')}" for why, n in model["absent"].items()]
    said = [count(model["labelled"], "record"), *absent]
    return Group(head, Text("  " + ", ".join(said), "dim"), _mix(model))


def _mix(model: Snapshot) -> Text:
    """Render the shares of the most frequent labels in one line."""
    total = sum(model["labels"].values()) + model["others"]["total"] or 1
    ordered = sorted(model["labels"].items(), key=lambda pair: (-pair[1], pair[0]))
    line = Text("  ")
    for label, value in ordered[:_LABELS]:
        line.append(plain(label), label_colour(label)).append(f" {percent(value / total, 1)}  ")
    return line


def _routes(routes: Snapshot) -> RenderableType:
    total = sum(routes["main"].values()) + sum(routes["filtered"].values())
    if not total:
        return Group(Text("no result routed yet", "dim"), _troubles(routes))
    groups = (
        ("", routes["main"], ""),
        ("copies ", routes["copies"], "cyan"),
        ("filtered ", routes["filtered"], OTHERS),
    )
    rows = [
        (f"{group}{name}", value / total, f"{number(value)}  {percent(value / total, 1)}", colour)
        for group, counts, colour in groups
        for name, value in counts.items()
    ]
    return Group(bars(rows), _troubles(routes))


def _troubles(routes: Snapshot) -> Table:
    grid = Table.grid(padding=(0, 2))
    if lost := routes["lost"]:
        grid.add_row(Text(f"copies lost: {number(lost)}; each is a dead letter", "bold red"))
    if missing := routes["path_missing"]:
        grid.add_row(Text(f"conditions on a field that a record lacked: {number(missing)}", "dim"))
    return grid
