"""The tables of `streamlabel offsets`.

Owns: nothing.
Thread: main.
Must not import: kafka, torch, transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from worker.core.counted import counted
from worker.core.resets import Reset

# Columns that are shown if a partition has a value.
_SOMETIMES: Mapping[str, Callable[[Any], str]] = {
    "range": lambda bounds: f"{bounds[0]:,} to {bounds[1]:,}",
    "member": str,
}


def print_group(document: dict[str, Any]) -> None:
    """Print a group: its members, and where it is in each partition."""
    console = Console(highlight=False)
    members = document["members"]
    console.print(f"group {document['group']}: {counted(len(members), 'member')}", markup=False)
    for member in members:
        console.print(f"  {member['client_id']} at {member['host']}", markup=False)
    table = Table(box=None)
    table.add_column("topic")
    for name in ("partition", "start", "committed", "end", "lag"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("next record", no_wrap=True)
    some = [name for name in _SOMETIMES if any(row[name] for row in document["partitions"])]
    for name in some:
        table.add_column(name)
    for row in document["partitions"]:
        cells = [f"{row['partition']}", *(_number(row[n]) for n in ("start", "committed", "end"))]
        more = [_SOMETIMES[name](row[name]) if row[name] else "-" for name in some]
        table.add_row(row["topic"], *cells, _number(row["lag"]), _time(row), *more)
    console.print(table)
    console.print(f"lag {document['lag']:,}")
    for row in document["partitions"]:
        if row["in_open_transaction"]:
            console.print(
                f"{row['topic']}[{row['partition']}]: an offset is part of a transaction that is "
                "still open",
                markup=False,
            )


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _time(row: dict[str, Any]) -> str:
    ms = row["next_record_ms"]
    if ms is None:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def print_plan(group: str, resets: Sequence[Reset]) -> None:
    """Print what a reset changes."""
    console = Console(highlight=False)
    console.print(f"group {group}", markup=False)
    table = Table(box=None)
    table.add_column("topic")
    for name in ("partition", "before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("effect")
    for reset in resets:
        topic, number = reset.place.partition
        before, after = _number(reset.place.committed), _number(reset.after)
        table.add_row(topic, f"{number}", before, after, _effect(reset))
    console.print(table)
    repeated = sum(reset.repeated for reset in resets)
    skipped = sum(reset.skipped for reset in resets)
    console.print(
        f"{counted(repeated, 'offset')} read again, {counted(skipped, 'offset')} skipped"
        + ("; what is read again gets a second outcome" if repeated else ""),
        soft_wrap=True,
    )


def _effect(reset: Reset) -> str:
    if reset.repeated:
        effect = f"reads {reset.repeated:,} again"
    elif reset.skipped:
        effect = f"skips {reset.skipped:,}"
    else:
        effect = "first offset" if reset.place.committed is None else "no change"
    if reset.after != reset.wanted:
        where = "before the start" if reset.wanted < reset.place.start else "beyond the end"
        effect += f"; {reset.wanted:,} is {where}"
    return effect
