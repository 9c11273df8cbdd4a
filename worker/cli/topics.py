"""Create the worker's topics, or describe them: sizes, offsets, the group's lag.

`create` creates those of the input, output and dead-letter topics that are missing, and leaves the
others unchanged. The topics of routes are among them; one with `{label}` needs the model's labels.
`describe` shows them all and the group's progress; it exits 1 if one is missing.
With `input.topic_pattern` they are for the inputs that match now.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from worker.cli.named_topics import with_every_topic
from worker.core.counted import counted
from worker.core.records import Partition
from worker.errors import Fatal
from worker.settings import Loaded, Settings, WorkerTopics

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.core.topics import TopicInfo
    from worker.kafka_io.admin import Admin

OPTIONS: tuple[str, ...] = (
    "kafka.",
    "input.topic",
    "input.topics",
    "input.topic_pattern",
    "output.topic",
    "output.dead_letter_topic",
    "output.filtered_topic",
    "routes",
    *("model.name", "model.revision", "model.cache_dir", "models", "decision."),
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
        f"[default: for an output those of its largest input, else {_DEFAULT_PARTITIONS}]",
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

    settings = with_every_topic(loaded.settings)
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
    from worker.runtime.topics import new_sizes

    topics = _usable(admin, settings)
    sizes = new_sizes(topics, admin.topics(topics.all), partitions or _DEFAULT_PARTITIONS)
    created = {
        name: admin.create(name, partitions or sizes[name], replication) for name in topics.all
    }
    infos = admin.topics(topics.all)
    for name, info in infos.items():
        if created[name]:
            print(f"created  {name}: {_size(info)}")
        else:
            ignored = _ignored(info, partitions, replication)
            print(f"exists   {name}: {_size(info)}; left unchanged{ignored}")
    for warning in _uneven(topics, infos):
        print(f"warning: {warning}")
    return _DONE


def _usable(admin: Admin, settings: Settings) -> WorkerTopics:
    """Return the topics with the inputs of now; say so if none matches.

    Raises:
        Fatal: an input's output is an input too, or has no valid name.
    """
    topics = admin.resolve(settings.topics)
    if conflicts := list(topics.conflicts()):
        raise Fatal("; ".join(conflicts))
    if not topics.inputs:
        print(f"no topic matches input.topic_pattern = {topics.pattern!r} yet", file=sys.stderr)
    return topics


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


def _uneven(topics: WorkerTopics, infos: dict[str, TopicInfo | None]) -> list[str]:
    """Warn of output topics with another number of partitions than their largest input."""
    numbers = {name: info.partitions for name, info in infos.items() if info}
    warnings = []
    for output, inputs in topics.all_feeds:
        source = max((numbers.get(name, 0) for name in inputs), default=0)
        number = numbers.get(output)
        if source and number and number != source:
            which = "the input" if len(inputs) == 1 else "its largest input"
            warnings.append(
                f"{output} has {counted(number, 'partition')} and {which} {source}: the outcome "
                f"of a record of partition p goes to partition p mod {number}"
            )
    return warnings


# -- describe ----------------------------------------------------------------------------------


def _description(admin: Admin, settings: Settings) -> dict[str, Any]:
    worker_topics = admin.resolve(settings.topics)
    infos = admin.topics(worker_topics.all)
    group, inputs = settings.kafka.group_id, worker_topics.inputs
    committed = admin.all_committed(group)
    topics: dict[str, dict[str, Any] | None] = {
        name: _topic(admin, name, info, committed if name in inputs else None) if info else None
        for name, info in infos.items()
    }
    members = [
        {"client_id": m.client_id, "host": m.host, "partitions": _by_topic(m.partitions)}
        for m in admin.members(group)
    ]
    lags = [_lag(topic) for name in inputs if (topic := topics[name])]
    lag = sum(lags) if len(lags) == len(inputs) else None
    return {"topics": topics, "group": {"id": group, "members": members, "lag": lag}}


def _by_topic(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for topic, number in partitions:
        numbers.setdefault(topic, []).append(number)
    return numbers


def _topic(
    admin: Admin, name: str, info: TopicInfo, committed: Mapping[Partition, int] | None
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
            offset = committed.get(Partition(name, partition))
            row |= {"committed": offset, "lag": max(0, end - (start if offset is None else offset))}
        rows.append(row)
    return {
        "replication_factor": info.replication_factor,
        "max_message_bytes": info.max_message_bytes,
        "cleanup_policy": info.cleanup_policy,
        "retention_ms": info.retention_ms,
        "partitions": rows,
    }


def _lag(topic: dict[str, Any]) -> int:
    return sum(row["lag"] for row in topic["partitions"])


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
        numbers = "; ".join(
            f"{topic} {', '.join(map(str, owned))}" for topic, owned in member["partitions"].items()
        )
        console.print(
            f"  {member['client_id']} at {member['host']}: partitions {numbers or 'none'}",
            markup=False,
        )
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
