"""Label a range of the input once, in a group of its own, and verify it.

    streamlabel backfill --from 7d --to now --output-topic labels-v2
    streamlabel backfill --from 2026-01-31T00:00 --to 2026-02-01T00:00
    streamlabel backfill --from earliest --to committed --rate 200

The range is chosen once, for each partition, and stored with the group's offsets. The same command
resumes after a kill, and several of them share the work. Once the group has committed the whole
range, every command audits it and ends. A later one is refused if `now`, `committed` or a duration
means another place by then. Exits 0 only if nothing of the range was deleted before it
was read and the audit holds.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from worker.cli.audit import add_limit, allowed_duplicates, audit_document, print_audit
from worker.cli.flags import options_of
from worker.core.bounds import Bounds, RangeProgress, progress_of
from worker.core.counted import counted
from worker.core.when import FORMS, Span, parse_when
from worker.errors import ArgumentsError, Fatal
from worker.settings import Loaded, Settings, load

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.kafka_io.admin import Admin
    from worker.kafka_io.audit import Audit

OPTIONS: tuple[str, ...] = ("",)

_HOLDS, _BROKEN = 0, 1
_PATIENCE = 2  # transaction timeouts: a killed worker's open transaction ends within one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the range, the speed, and what the audit allows."""
    where = f"a place: {FORMS}"
    parser.add_argument("--from", dest="start", metavar="WHEN", required=True, help=where)
    parser.add_argument(
        "--to",
        dest="end",
        metavar="WHEN",
        default="now",
        help="a place as in --from, which is not labelled itself [default: now]",
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        metavar="R",
        help="most records a second of this worker [default: as fast as it can]",
    )
    add_limit(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def _rate(text: str) -> float:
    rate = float(text)
    if not 1 <= rate < float("inf"):
        raise argparse.ArgumentTypeError("must be at least 1 record a second")
    return rate


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Label the range, and audit it; return 0 if all of it was read and every promise holds.

    Raises:
        ArgumentsError: the range has none of the forms or no record, or the group is the worker's.
        Fatal: the group has another range, or has labelled one whose places have moved since; the
            fault that stopped the worker.
    """
    from worker.cli.backfill_view import Watch, finished_text
    from worker.clock import SystemClock
    from worker.kafka_io.admin import Admin

    clock = SystemClock()
    settings, span = _plan(args, loaded, clock.wall_ms())
    with Admin(settings.kafka) as admin:

        def look() -> RangeProgress:
            return _look(admin, settings, span)

        watch = Watch(look, settings, clock, quiet="log.level" not in loaded.origins)
        before = look()
        if before.finished and span.moves:
            group = settings.kafka.group_id
            notes = {p: at.note for p, at in admin.group_offsets(group).items()}
            raise Fatal(finished_text(group, span, notes))
        _say_what(settings, span, before)
        if not before.finished:
            with watch.shown():
                _work(replace(loaded, settings=settings), span)
        after = look()
    if not after.finished:
        raise Fatal(
            f"stopped before the end: {after.done:,} of {counted(after.total, 'offset')} are "
            "labelled; the same command goes on from there"
        )
    return _judge(args, settings, span, after)


def _plan(args: argparse.Namespace, loaded: Loaded, now_ms: int) -> tuple[Settings, Span]:
    """Return the settings of the backfill's worker, and the range."""
    start, end = parse_when(args.start, now_ms), parse_when(args.end, now_ms)
    given = {o.path: vars(args)[o.path] for o in options_of(OPTIONS) if o.path in vars(args)}
    common = {path: value for path, value in given.items() if path != "kafka.group_id"}
    worker_group = load(common, loaded.file).settings.kafka.group_id
    span = Span(start, end, worker_group, args.rate, now_ms)
    span.require_order()
    group = given.get("kafka.group_id") or _group(worker_group, span, given.get("output.topic"))
    if group == worker_group:
        raise ArgumentsError(
            f"--group-id {group} is the group of the worker itself, whose offsets a backfill would "
            "move: choose another one, or leave it out"
        )
    own = {"kafka.group_id": group}
    if not any(path.startswith("http.") for path in given):
        own["http.enabled"] = "false"  # a worker on this machine may have the port
    settings = load(given | own, loaded.file).settings
    if settings.processes > 1:
        raise ArgumentsError(
            "a backfill has one process: start the same command several times instead of "
            "--processes"
        )
    if "kafka.group_instance_id" not in given:  # the file's names the slot of the worker
        kafka = settings.kafka.model_copy(update={"group_instance_id": None})
        settings = settings.model_copy(update={"kafka": kafka})
    # The shadow's comparison, and its topic, are those of the stream.
    shadow = settings.shadow.model_copy(update={"name": ""})
    return settings.model_copy(update={"shadow": shadow}), span


def _group(worker_group: str, span: Span, output: str | None) -> str:
    """Name the group of a range after the worker's group, so that the same command resumes."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", span.name.replace("..", "-to-"))
    into = f"-into-{output}" if output else ""
    return f"{worker_group}-backfill-{name}{into}"


def _look(admin: Admin, settings: Settings, span: Span) -> RangeProgress:
    """Return how far the group is.

    Raises:
        Fatal: the group has another range, or none.
        ArgumentsError: the range names a partition that the input does not have.
    """
    from worker.kafka_io.group_state import input_partitions

    group = settings.kafka.group_id
    partitions, committed = input_partitions(admin, settings), admin.group_offsets(group)
    for when in (span.start, span.end):
        when.require({partition.partition for partition in partitions})
    bounds = Bounds(span.name, group)
    for partition in partitions:
        if partition in committed:
            bounds.learn(partition, committed[partition].note)
            bounds[partition]
    return progress_of(partitions, committed)


def _say_what(settings: Settings, span: Span, before: RangeProgress) -> None:
    topics, group = settings.topics, settings.kafka.group_id
    inputs = topics.pattern or ", ".join(topics.inputs)
    print(f"backfill {span.text} of {inputs}, results to {topics.output}", file=sys.stderr)
    print(f"group {group} (the same command resumes and shares it)", file=sys.stderr)
    if before.finished:
        print("the group has labelled this range already: auditing it", file=sys.stderr)
    elif before.done:
        print(f"resuming at {before.done:,} of {before.total:,} offsets", file=sys.stderr)


def _work(loaded: Loaded, span: Span) -> None:
    stop, settings = threading.Event(), loaded.settings
    from worker.http.connections import raise_file_limit
    from worker.signals import stop_on_signals

    stop_on_signals(stop)
    from worker.cli.run import expose
    from worker.inference.warm import loading
    from worker.runtime.serve import serve

    raise_file_limit()
    serve(settings, stop, loading, expose(loaded), page=settings.http.enabled, span=span)


def _judge(args: argparse.Namespace, settings: Settings, span: Span, after: RangeProgress) -> int:
    from worker.kafka_io.audit import run_audit

    audit = run_audit(
        settings,
        to_end=False,
        progress=lambda *_: None,
        patience=_PATIENCE * settings.transaction_timeout,
    )
    broken = audit.report.breaches(allowed_duplicates(settings, args.allow_duplicates))
    if args.json:
        print(json.dumps(_document(settings, span, after, audit, broken), ensure_ascii=False))
    else:
        print(f"range {span.text} of {', '.join(audit.topics.inputs)}")
        print_audit(audit, broken)
    if after.lost:
        print(
            f"streamlabel: {counted(after.lost, 'offset')} of the range were deleted (retention) "
            "before they were read, so their records have no outcome",
            file=sys.stderr,
        )
    return _BROKEN if broken or after.lost else _HOLDS


def _document(
    settings: Settings, span: Span, after: RangeProgress, audit: Audit, broken: list[Any]
) -> dict[str, Any]:
    return audit_document(settings, audit, broken) | {
        "range": span.text,
        "offsets": after.total,
        "lost": after.lost,
    }
