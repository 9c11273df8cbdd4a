"""Verify from the topics alone that each record was labelled once and in order.

Every input record below the group's committed offsets must have exactly one outcome: a result in
one of the topics of results and routes, the note of a filtered record, or a dead letter. Each copy
that a result announces must be there too. A replay of a dead letter is no record of its own: the
record counts under its last outcome. Outcomes must keep the order of their partition, and each must
belong to a record. Records that can't be judged (retention, compaction, a recreated topic, other
producers) are counted and listed with the reason. Reads the dead letters twice and all other topics
once, holds a byte of memory per record, about 150 per dead letter and 300 per replayed one, and may
run beside workers.

With delivery = "at_least_once" duplicates are reported and allowed, unless --allow-duplicates sets
a limit; with "exactly_once" the limit is 0. Exits 0 if every promise holds, else 1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from worker.cli.progress import clear_progress, progress_line
from worker.core.audit_report import Offence
from worker.core.counted import counted
from worker.settings import Loaded, Settings

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.kafka_io.audit import Audit

OPTIONS: tuple[str, ...] = (
    "kafka.",
    "input.topic",
    "input.topics",
    "input.topic_pattern",
    "input.start",
    "output.topic",
    "output.dead_letter_topic",
    "output.filtered_topic",
    "models",
    "routes",
    "delivery",
)

_HOLDS, _BROKEN = 0, 1

_PROMISES: dict[Offence, str] = {
    "missing": "every record has an outcome",
    "unproven": "every outcome of the range is still there",
    "uncopied": "every copy is there",
    "duplicated": "no record has two outcomes",
    "reordered": "outcomes keep the order of their partition",
    "orphans": "every outcome has a record",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the range, the limit of duplicates and the format."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--to-end",
        action="store_true",
        help="judge all present input records, committed or not",
    )
    parser.add_argument(
        "--more-topics",
        type=_names,
        default=(),
        metavar="NAMES",
        help="read results and copies of these topics too, as of routes that the settings no longer "
        "have: comma-separated",
    )
    add_limit(parser)


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add the limit of duplicates."""
    parser.add_argument(
        "--allow-duplicates",
        type=_count,
        metavar="N",
        help="fail above N duplicates [default: never in at_least_once, 0 in exactly_once]",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Compare the topics and print the verdicts; return 0 if every promise holds, else 1."""
    from worker.kafka_io.audit import run_audit

    settings = loaded.settings
    audit = run_audit(settings, to_end=args.to_end, progress=progress_line(), more=args.more_topics)
    clear_progress()
    broken = audit.report.breaches(allowed_duplicates(settings, args.allow_duplicates))
    if args.json:
        print(json.dumps(audit_document(settings, audit, broken), ensure_ascii=False))
    else:
        print_audit(audit, broken)
    return _BROKEN if broken else _HOLDS


def allowed_duplicates(settings: Settings, allowed: int | None) -> int | None:
    """Return the limit of duplicates, or None if any number is allowed."""
    if allowed is None and settings.delivery == "exactly_once":
        return 0
    return allowed


def audit_document(settings: Settings, audit: Audit, broken: list[Offence]) -> dict[str, Any]:
    """Return the verdicts as one JSON object."""
    report, topics = audit.report, audit.topics
    return {
        "holds": not broken,
        "broken": broken,
        "consumed": report.consumed,
        "published": report.published,
        "dead_lettered": report.dead_lettered,
        "replayed": report.replayed,
        "reasons": audit.reasons,
        "filtered": report.filtered,
        "filtered_by": audit.filtered,
        "filtered_settings": audit.digests,
        "published_to": audit.published_to,
        "copies": report.copies,
        "refused_copies": report.refused_copies,
        "uncopied": report.uncopied,
        "missing": report.missing,
        "unproven": report.unproven,
        "duplicated": report.duplicated,
        "reordered": report.reordered,
        "orphans": report.orphans,
        "pending": report.pending,
        "unjudged": report.unjudged,
        "examples": report.examples,
        "notes": audit.notes,
        "delivery": settings.delivery,
        "group": settings.kafka.group_id,
        "inputs": topics.inputs,
        "outputs": audit.outlets.topics("result"),
        "dead_letters": topics.dead_letters,
    }


def print_audit(audit: Audit, broken: list[Offence]) -> None:
    """Print the verdicts for people."""
    from rich.console import Console

    report, console = audit.report, Console(highlight=False, soft_wrap=True)
    if not report.consumed:
        console.print("[yellow]nothing to judge:[/] no input record should have an outcome yet")
    for line in _counts(audit):
        console.print(line, markup=False)
    for offence, promise in _PROMISES.items():
        if (offence == "unproven" and not report.of_range) or (
            offence == "uncopied" and not (report.copies or report.uncopied)
        ):
            continue
        style, word = ("red", "BROKEN") if offence in broken else ("green", "holds")
        line = f"{promise:<44}{_number_of(offence, getattr(report, offence))}".rstrip()
        console.print(f"[{style}]{word:>6}[/]  {line}")
        for example in report.examples.get(offence, []):
            console.print(f"          {example}", markup=False)
    if report.pending:
        console.print(f"not judged: {counted(report.pending, 'input offset')} not committed yet")
    for reason, number in report.unjudged.items():
        console.print(f"not judged: {number:,} x {reason}", markup=False)
    for note in audit.notes:
        console.print(f"note: {note}", markup=False)


def _counts(audit: Audit) -> Iterator[str]:
    """Yield the number of records by outcome, then by reason and by topic."""
    report = audit.report
    filtered = f"{report.filtered:,} filtered, " if report.filtered else ""
    yield (
        f"{counted(report.consumed, 'input record')}: {report.published:,} labelled, {filtered}"
        f"{counted(report.dead_lettered, 'dead letter')}, {report.missing:,} without an outcome"
    )
    if report.replayed:
        yield f"  {report.replayed:,} of the labelled were dead letters before a replay"
    if len(audit.published_to) > 1:
        yield from (f"  to {name} {number:,}" for name, number in audit.published_to.items())
    yield from (f"  filtered by {name} {number:,}" for name, number in audit.filtered.items())
    yield from (f"  {name} {number:,}" for name, number in audit.reasons.items())
    yield from (f"  copies in {name} {number:,}" for name, number in report.copies.items())
    if report.refused_copies:
        yield (
            f"  {report.refused_copies:,} more were refused by their topic; dead letters tell of "
            "them"
        )


def _number_of(offence: Offence, number: int) -> str:
    """Return the number in words, or nothing for 0."""
    if not number:
        return ""
    return counted(number, "orphan") if offence == "orphans" else f"{number:,} {offence}"
