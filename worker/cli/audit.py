"""Prove from the topics alone that the worker's promises held.

Every input record below the group's committed offsets must have exactly one outcome: a result or a
dead letter. Outcomes must lie in the order of their partition, and none may be without a record.
What can't be judged (retention, compaction, a topic made anew, other producers' records) is counted
and named, never guessed. Reads all three topics once; holds one byte a record in memory; may run
beside workers.

With delivery = "at_least_once" duplicates are told but break no promise, unless --allow-duplicates
sets a bound; with "exactly_once" the bound is 0. Exits 0 where every promise held, else 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from worker.core.audit_report import Offence
from worker.settings import Loaded, Settings

if TYPE_CHECKING:  # loading them loads the Kafka client
    from worker.kafka_io.audit import Audit, Progress

OPTIONS: tuple[str, ...] = (
    "kafka.",
    "input.topic",
    "input.start",
    "output.topic",
    "output.dead_letter_topic",
    "delivery",
)

_HOLDS, _BROKEN = 0, 1

_PROMISES: dict[Offence, str] = {
    "missing": "every record has an outcome",
    "duplicated": "no record has two",
    "reordered": "outcomes keep the order of their partition",
    "orphans": "every outcome has a record",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is the audit's own."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--to-end",
        action="store_true",
        help="judge all input records that there are now, whatever the group has committed",
    )
    parser.add_argument(
        "--allow-duplicates",
        type=_count,
        metavar="N",
        help="duplicates beyond N break the promise [any number in at_least_once, else 0]",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Read, compare, tell."""
    from worker.kafka_io.audit import run_audit  # loads the Kafka client

    settings = loaded.settings
    audit = run_audit(settings, to_end=args.to_end, progress=_progress_line())
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    broken = audit.report.breaches(_allowed(settings, args.allow_duplicates))
    if args.json:
        print(json.dumps(_document(settings, audit, broken), ensure_ascii=False))
    else:
        _tell(audit, broken)
    return _BROKEN if broken else _HOLDS


def _allowed(settings: Settings, given: int | None) -> int | None:
    if given is None and settings.delivery == "exactly_once":
        return 0
    return given


def _progress_line() -> Progress:
    def told(topic: str, done: int, total: int) -> None:
        print(f"\r\033[K{topic}: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)

    def untold(topic: str, done: int, total: int) -> None:
        """Nobody watches."""

    return told if sys.stderr.isatty() else untold


def _document(settings: Settings, audit: Audit, broken: list[Offence]) -> dict[str, Any]:
    report, topics = audit.report, settings.topics
    return {
        "holds": not broken,
        "broken": broken,
        "consumed": report.consumed,
        "published": report.published,
        "dead_lettered": report.dead_lettered,
        "reasons": audit.reasons,
        "missing": report.missing,
        "duplicated": report.duplicated,
        "reordered": report.reordered,
        "orphans": report.orphans,
        "pending": report.pending,
        "unjudged": report.unjudged,
        "examples": report.examples,
        "notes": audit.notes,
        "delivery": settings.delivery,
        "group": settings.kafka.group_id,
        "input": topics.inputs[0],
        "output": topics.output,
        "dead_letters": topics.dead_letters,
    }


def _tell(audit: Audit, broken: list[Offence]) -> None:
    from rich.console import Console

    report, console = audit.report, Console(highlight=False, soft_wrap=True)
    if not report.consumed:
        console.print(
            "[yellow]nothing could be judged:[/] no record of the input has an outcome due"
        )
    console.print(
        f"{report.consumed:,} input records: {report.published:,} labelled, "
        f"{report.dead_lettered:,} dead letters, {report.missing:,} without an outcome"
    )
    for reason, number in audit.reasons.items():
        console.print(f"  {reason} {number:,}", markup=False)
    for offence, promise in _PROMISES.items():
        number = getattr(report, offence)
        style, word = ("red", "BROKEN") if offence in broken else ("green", "holds")
        found = f"{number:,} {offence}" if number else ""
        console.print(f"[{style}]{word:>6}[/]  {promise:<44}{found}".rstrip())
        for example in report.examples.get(offence, []):
            console.print(f"          {example}", markup=False)
    if report.pending:
        console.print(f"not judged: {report.pending:,} input offsets that are not committed yet")
    for why, number in report.unjudged.items():
        console.print(f"not judged: {number:,} x {why}", markup=False)
    for note in audit.notes:
        console.print(f"note: {note}", markup=False)
