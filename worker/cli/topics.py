"""Make the worker's three topics, or show them: sizes, offsets, the group's lag.

`create` makes what is missing of the input, output and dead-letter topic and leaves the rest as it
is. `describe` shows all three, and how far the group is; it exits 1 where one is missing.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from worker.settings import Loaded, Settings

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.core.topics import TopicInfo
    from worker.kafka_io.admin import Admin

OPTIONS: tuple[str, ...] = (
    "kafka.",
    "input.topic",
    "output.topic",
    "output.dead_letter_topic",
)

_DONE, _FAILED = 0, 1
_DEFAULT_PARTITIONS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is the command's own."""
    parser.add_argument("action", choices=("create", "describe"))
    parser.add_argument(
        "--partitions",
        type=_positive,
        metavar="N",
        help="create: partitions of each topic, which bound how many workers share the input "
        f"[{_DEFAULT_PARTITIONS}, or as many as an input that is there]",
    )
    parser.add_argument(
        "--replication-factor",
        type=int,
        default=-1,
        metavar="N",
        help="create: copies of each partition [-1: the broker's default]",
    )
    parser.add_argument("--json", action="store_true", help="describe: print one JSON object")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Create or describe."""
    from worker.kafka_io.admin import Admin

    settings = loaded.settings
    with Admin(settings.kafka) as admin:
        if args.action == "create":
            return _create(admin, settings, args.partitions, args.replication_factor)
        document = _description(admin, settings)
    if args.json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        _show(document)
    return _FAILED if None in document["topics"].values() else _DONE


def _create(admin: Admin, settings: Settings, wanted: int | None, replication: int) -> int:
    names = settings.topics.all
    source = admin.topics(names)[settings.input.topic]
    partitions = wanted or (source.partitions if source else _DEFAULT_PARTITIONS)
    made = {name: admin.create(name, partitions, replication) for name in names}
    found = admin.topics(names)
    for name, info in found.items():
        copies = f"{info.partitions} partitions, {info.replication_factor} copies" if info else ""
        print(f"{'created' if made[name] else 'there already':<14} {name} ({copies})")
    for warning in _uneven(settings, found):
        print(f"warning: {warning}")
    return _DONE


def _uneven(settings: Settings, found: dict[str, TopicInfo | None]) -> list[str]:
    """Outcomes go to the partition of their record's number, modulo how many there are."""
    numbers = {name: info.partitions for name, info in found.items() if info}
    of_input = numbers.get(settings.input.topic)
    return [
        f"{name} has {number} partitions and the input {of_input}: a record's outcome goes to "
        f"partition (its own mod {number}), so input and outcome differ in number"
        for name, number in numbers.items()
        if number != of_input
    ]


def _description(admin: Admin, settings: Settings) -> dict[str, Any]:
    infos = admin.topics(settings.topics.all)
    group, source = settings.kafka.group_id, settings.input.topic
    committed = admin.committed(group, source) if infos[source] else {}
    topics: dict[str, dict[str, Any] | None] = {
        name: _topic(admin, name, info, committed if name == source else None) if info else None
        for name, info in infos.items()
    }
    members = [
        {"client_id": m.client_id, "host": m.host, "partitions": m.partitions}
        for m in admin.members(group, source)
    ]
    return {
        "topics": topics,
        "group": {"id": group, "members": members, "lag": _total(topics[source], "lag")},
    }


def _topic(
    admin: Admin, name: str, info: TopicInfo, committed: dict[int, int] | None
) -> dict[str, Any]:
    starts, ends = admin.start_offsets(name), admin.end_offsets(name)
    rows = []
    for number, end in ends.items():
        start = starts[number]
        row: dict[str, int | None] = {
            "partition": number,
            "start": start,
            "end": end,
            "records": end - start,
        }
        if committed is not None:
            at = committed.get(number)
            row |= {"committed": at, "lag": max(0, end - (start if at is None else at))}
        rows.append(row)
    return {
        "replication_factor": info.replication_factor,
        "max_message_bytes": info.max_message_bytes,
        "cleanup_policy": info.cleanup_policy,
        "retention_ms": info.retention_ms,
        "partitions": rows,
    }


def _total(topic: dict[str, Any] | None, column: str) -> int | None:
    return sum(row[column] for row in topic["partitions"]) if topic else None


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for name, topic in document["topics"].items():
        if topic is None:
            console.print(f"[red]{name}: missing[/] (`streamlabel topics create` makes it)\n")
            continue
        console.print(f"[bold]{name}[/]  {_facts(topic)}", soft_wrap=True)
        table = Table(box=None)
        for column in topic["partitions"][0]:
            table.add_column(column, justify="right")
        for row in topic["partitions"]:
            table.add_row(*("-" if cell is None else f"{cell:,}" for cell in row.values()))
        console.print(table, "")
    group = document["group"]
    console.print(f"group {group['id']}: {len(group['members'])} members", markup=False)
    for member in group["members"]:
        numbers = ", ".join(map(str, member["partitions"])) or "none"
        console.print(f"  {member['client_id']} at {member['host']}: partitions {numbers}")
    if group["lag"] is not None:
        console.print(f"lag {group['lag']:,}")


def _facts(topic: dict[str, Any]) -> str:
    retention = topic["retention_ms"]
    kept = "unknown" if retention is None else f"{retention / 86_400_000:g} days"
    largest = topic["max_message_bytes"]
    return (
        f"{topic['replication_factor']} copies, {topic['cleanup_policy'] or 'unknown'} policy, "
        f"kept {'for ever' if retention == -1 else kept}, batches up to "
        f"{'unknown' if largest is None else f'{largest:,}'} bytes"
    )
