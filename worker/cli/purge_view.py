"""Prints the report of `streamlabel dead-letters purge-report`, for people and as JSON.

Owns: nothing; it deletes nothing.
Thread: main.
Must not import: torch, transformers or kafka.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.core.purge import PurgeReport

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.kafka_io.dead_letter_topic import DeadLetterTopic


def purge_document(topic: DeadLetterTopic, report: PurgeReport, within: str) -> dict[str, Any]:
    """Return what may be purged, as JSON has it."""
    partitions = [
        {
            "partition": number,
            "start": one.start,
            "purge_below": one.below,
            "labelled": one.states["labelled"],
            "superseded": one.states["superseded"],
            "copies": one.states["copy"],
            "open": one.states["open"],
            "unreadable": one.states["unreadable"],
            "removed_soon": one.soon,
        }
        for number, one in report.partitions.items()
    ]
    return {
        "topic": topic.name,
        "retention_ms": topic.info.deletes_after_ms,
        "cleanup_policy": topic.info.cleanup_policy,
        "within": within,
        "partitions": partitions,
        "delete_records": {
            "partitions": [
                {"topic": topic.name, "partition": number, "offset": one.below}
                for number, one in report.partitions.items()
                if one.below > one.start
            ],
            "version": 1,
        },
    }


def print_purge(document: Mapping[str, Any], servers: str) -> None:
    """Print what may be purged, and how."""
    console = Console(highlight=False)
    rows, within = document["partitions"], document["within"]
    total = {name: sum(row[name] for row in rows) for name in rows[0]} if rows else {}
    console.print(
        Text(
            f"{document['topic']}: {total['labelled']:,} labelled since, "
            f"{total['superseded']:,} superseded by another dead letter, {total['open']:,} open, "
            f"{total['unreadable']:,} unreadable"
            + (f", {total['copies']:,} of refused copies" if total["copies"] else "")
        ),
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("partition", "start", "purge below", "labelled", "superseded", "open"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{row[column.replace(' ', '_')]:,}" for column in _headings(table)))
    console.print(table)
    if document["retention_ms"] is None:
        console.print("retention: the topic keeps dead letters for ever, or its limit is unknown")
    elif total["removed_soon"]:
        console.print(
            f"[yellow]retention removes {total['removed_soon']:,} open ones within {within}:[/] "
            "replay them before, or raise retention.ms"
        )
    else:
        console.print(f"retention removes no open one within {within}", markup=False)
    _print_deletion(document, servers)


def _headings(table: Table) -> Iterator[str]:
    for column in table.columns:
        yield str(column.header)


def _print_deletion(document: Mapping[str, Any], servers: str) -> None:
    records = document["delete_records"]
    if not records["partitions"]:
        print("nothing to purge: no partition begins with settled dead letters")
        return
    if "delete" not in (document["cleanup_policy"] or "delete"):
        print("the topic is only compacted, so Kafka deletes no records of it on request")
        return
    print(
        "run `streamlabel audit` first: after the purge it can't tell a lost record from a dead one"
    )
    print("nothing was deleted; to purge, write this to purge.json and run")
    server = shlex.quote(servers)
    print(f"  kafka-delete-records.sh --bootstrap-server {server} --offset-json-file purge.json")
    print(json.dumps(records))
