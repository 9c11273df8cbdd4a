"""Create the worker's topics, or describe them: sizes, offsets, the group's lag.

`create` creates those of the input, output and dead-letter topic that are missing, and leaves the
others unchanged. `describe` shows all three and the group's progress; it exits 1 if one is missing.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from worker.core.counted import counted
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
    """Add the action and the size of a new topic."""
    parser.add_argument(
        "action",
        choices=("create", "describe"),
        help="create missing topics, or describe the topics and the group",
    )
    parser.add_argument(
        "--partitions",
        type=_positive,
        metavar="N",
        help="create: partitions of a new topic; at most that many workers share the input "
        f"[default: those of the input if it exists, else {_DEFAULT_PARTITIONS}]",
    )
    parser.add_argument(
        "--replication-factor",
        type=_factor,
        default=-1,
        metavar="N",
        help="create: replicas of each partition of a new topic [default: the broker's]",
    )
    parser.add_argument("--json", action="store_true", help="describe: print one JSON object")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _factor(text: str) -> int:
    return -1 if text == "-1" else _positive(text)


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Create or describe; return 0, or 1 if a described topic is missing."""
    from worker.kafka_io.admin import Admin

    settings = loaded.settings
    with Admin(settings.kafka) as admin:
        if args.action == "create":
            return _create(admin, settings, args.partitions, args.replication_factor)
        document = _description(admin, settings)
    if args.json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        _print(document)
    return _FAILED if None in document["topics"].values() else _DONE


# -- create ------------------------------------------------------------------------------------


def _create(admin: Admin, settings: Settings, partitions: int | None, replication: int) -> int:
    names = settings.topics.all
    source = admin.topics(names)[settings.input.topic]
    number = partitions or (source.partitions if source else _DEFAULT_PARTITIONS)
    created = {name: admin.create(name, number, replication) for name in names}
    infos = admin.topics(names)
    for name, info in infos.items():
        if created[name]:
            print(f"created  {name}: {_size(info)}")
        else:
            ignored = _ignored(info, partitions, replication)
            print(f"exists   {name}: {_size(info)}; left unchanged{ignored}")
    for warning in _uneven(settings, infos):
        print(f"warning: {warning}")
    return _DONE


def _size(info: TopicInfo | None) -> str:
    if info is None:  # deleted meanwhile
        return "unknown"
    replicas = counted(info.replication_factor, "replica")
    return f"{counted(info.partitions, 'partition')}, {replicas}"


def _ignored(info: TopicInfo | None, partitions: int | None, replication: int) -> str:
    """Name the flags that ask for another size than an existing topic has."""
    flags = []
    if info and partitions and partitions != info.partitions:
        flags.append(f"--partitions {partitions}")
    if info and replication not in (-1, info.replication_factor):
        flags.append(f"--replication-factor {replication}")
    verb = "applies" if len(flags) == 1 else "apply"
    return f" ({' and '.join(flags)} {verb} to new topics only)" if flags else ""


def _uneven(settings: Settings, infos: dict[str, TopicInfo | None]) -> list[str]:
    """Warn of output topics with another number of partitions than the input."""
    numbers = {name: info.partitions for name, info in infos.items() if info}
    source = numbers.get(settings.input.topic)
    return [
        f"{name} has {counted(number, 'partition')} and the input {source}: the outcome of a "
        f"record of partition p goes to partition p mod {number}"
        for name, number in numbers.items()
        if number != source
    ]


# -- describe ----------------------------------------------------------------------------------


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
    for partition, end in ends.items():
        start = starts[partition]
        row: dict[str, int | None] = {
            "partition": partition,
            "start": start,
            "end": end,
            "records": end - start,
        }
        if committed is not None:
            offset = committed.get(partition)
            row |= {"committed": offset, "lag": max(0, end - (start if offset is None else offset))}
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


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for name, topic in document["topics"].items():
        if topic is None:
            console.print(f"[red]{name}: missing[/] (create it with `streamlabel topics create`)\n")
            continue
        console.print(f"[bold]{name}[/]  {_facts(topic)}", soft_wrap=True)
        table = Table(box=None)
        for column in topic["partitions"][0]:
            table.add_column(column, justify="right")
        for row in topic["partitions"]:
            table.add_row(*("-" if cell is None else f"{cell:,}" for cell in row.values()))
        console.print(table, "")
    group = document["group"]
    console.print(f"group {group['id']}: {counted(len(group['members']), 'member')}", markup=False)
    for member in group["members"]:
        numbers = ", ".join(map(str, member["partitions"])) or "none"
        console.print(f"  {member['client_id']} at {member['host']}: partitions {numbers}")
    if group["lag"] is not None:
        console.print(f"lag {group['lag']:,}")


def _facts(topic: dict[str, Any]) -> str:
    largest = topic["max_message_bytes"]
    return (
        f"{counted(topic['replication_factor'], 'replica')}, cleanup policy "
        f"{topic['cleanup_policy'] or 'unknown'}, retention {_retention(topic['retention_ms'])}, "
        f"batches up to {'unknown' if largest is None else f'{largest:,}'} bytes"
    )


def _retention(ms: int | None) -> str:
    if ms is None:
        return "unknown"
    days = ms / 86_400_000
    return "unlimited" if ms == -1 else f"{days:g} {'day' if days == 1 else 'days'}"
