"""Count, show and replay dead letters, and tell which may be purged.

    streamlabel dead-letters list --since 1d
    streamlabel dead-letters show posts/3/1043
    streamlabel dead-letters replay --reason model_failed --dry-run
    streamlabel dead-letters replay --label --exactly-once
    streamlabel dead-letters purge-report

`replay` copies the records of dead letters back into the topics that they came from, with their
bytes, key, headers and timestamp; or it labels them at once (--label). It ends at the end that the
topic has when it begins. It has a group of its own, `GROUP-replay` or the one of --group-id, and
commits after the acknowledgement: the same command goes on where a killed one stopped. Dead letters
that the filters or the rules leave out are passed too; --again begins at the first one once more.

Exits 0 if it did what was asked, 1 if it failed or was stopped before the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from worker.cli.letter_options import add_options, filters_of, require_options_of
from worker.cli.progress import clear_progress, progress_line
from worker.core.when import parse_duration
from worker.errors import ArgumentsError, Fatal
from worker.settings import Loaded

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.core.dead_letters import Letter, LetterFilters
    from worker.kafka_io.dead_letter_topic import DeadLetterTopic

OPTIONS: tuple[str, ...] = (
    *(
        "kafka.",
        "input.",
        "output.",
        "registry.",
        "model.",
        "models",
        "decision.",
        "prepare.",
        "routes",
        "batch.",
        "cache.",
        "log.",
    ),
    *("delivery", "commit_interval", "transaction_timeout", "max_", "shutdown_timeout"),
    *("rebalance_drain_timeout", "stall_timeout"),
)

_DONE = 0
_SOON = "1d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action, its options and the filters."""
    add_options(parser)


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Do what the action says.

    Raises:
        ArgumentsError: an option makes no sense.
        StreamlabelError: the dead letters can't be read, or not replayed; says why.
    """
    require_options_of(args)
    from worker.clock import SystemClock

    now_ms = SystemClock().wall_ms()
    filters, within_ms = filters_of(args, now_ms), parse_duration("--within", args.within or _SOON)
    if args.action == "replay":
        from worker.cli.letter_replay import replay

        return replay(args, loaded, filters)
    from worker.kafka_io.dead_letter_topic import DeadLetterTopic

    with DeadLetterTopic(loaded.settings, progress_line()) as topic:
        topic.require(filters.partitions)
        if args.action == "list":
            return _list(args, topic, filters)
        if args.action == "show":
            return _show(args, topic, filters)
        return _purge_report(args, topic, filters, loaded, now_ms, within_ms)


def _list(args: argparse.Namespace, topic: DeadLetterTopic, filters: LetterFilters) -> int:
    from worker.cli.letter_view import counts_document, print_counts
    from worker.core.letter_groups import LetterCounts

    range_, counts, filtered = topic.range(), LetterCounts(args.by or "reason"), 0
    for letter in topic.read(range_.ends):
        if filters.accept(letter):
            counts.add(letter)
        else:
            filtered += 1
    clear_progress()
    if args.json:
        print(json.dumps(counts_document(topic.name, counts, filtered), ensure_ascii=False))
    else:
        print_counts(topic.name, counts, filtered)
    return _DONE


def _show(args: argparse.Namespace, topic: DeadLetterTopic, filters: LetterFilters) -> int:
    from worker.cli.letter_view import letter_document, print_letter

    letters = [letter for letter in _at(topic, args.place) if filters.accept(letter)]
    clear_progress()
    if not letters:
        raise Fatal(
            f"no dead letter of {topic.name} is at {args.place} or of a record there, or the "
            "filters choose none (`streamlabel dead-letters list` counts them)"
        )
    if args.raw:
        if len(letters) > 1:
            print(f"streamlabel: the last of {len(letters)} dead letters", file=sys.stderr)
        sys.stdout.flush()
        sys.stdout.buffer.write(letters[-1].value)
    elif args.json:
        print(json.dumps([letter_document(topic.name, letter) for letter in letters]))
    else:
        for number, letter in enumerate(letters):
            print_letter(topic.name, letter, first=number == 0)
    return _DONE


def _at(topic: DeadLetterTopic, place: str) -> list[Letter]:
    """Return the dead letter at these coordinates, or all of the record at them."""
    from worker.core.coordinates import parse_source

    wanted = parse_source(place.encode("utf-8", "replace"))
    if wanted is None:
        raise ArgumentsError(f"{place!r} is no TOPIC/PARTITION/OFFSET, such as posts/3/1043")
    name, partition, offset = wanted
    ends = topic.range().ends
    if name == topic.name:
        if offset >= ends.get(partition, 0):
            return []
        found = topic.read({partition: offset + 1}, {partition: offset})
        return [letter for letter in found if letter.offset == offset]
    return [letter for letter in topic.read(ends) if wanted in (letter.source, letter.first)]


def _purge_report(
    args: argparse.Namespace,
    topic: DeadLetterTopic,
    filters: LetterFilters,
    loaded: Loaded,
    now_ms: int,
    within_ms: int,
) -> int:
    from worker.cli.purge_view import print_purge, purge_document
    from worker.core.purge import PurgeReport

    range_ = topic.range()
    settled = topic.settled(range_.ends)
    report = PurgeReport(settled, filters, range_.starts, range_.ends)
    retention_ms = topic.info.deletes_after_ms
    gone_ms = None if retention_ms is None else now_ms + within_ms - retention_ms
    for letter in topic.read(range_.ends):
        report.add(letter, soon=gone_ms is not None and letter.timestamp_ms < gone_ms)
    clear_progress()
    document: dict[str, Any] = purge_document(topic, report, args.within or _SOON)
    if args.json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        print_purge(document, loaded.settings.kafka.bootstrap_servers)
    return _DONE
