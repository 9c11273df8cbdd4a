"""`streamlabel dead-letters replay`: prepares a replay, runs it, and says what it did.

Owns: the replay's group and settings.
Thread: main.
Must not import: torch, transformers or kafka.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from worker import logs
from worker.cli.flags import options_of
from worker.cli.letter_options import MAX_ATTEMPTS
from worker.cli.letter_view import replay_lines
from worker.cli.progress import clear_progress, progress_line
from worker.core.counted import counted
from worker.core.dead_letters import LetterFilters
from worker.core.replay_rules import ReplayCounts, ReplayRules, ReplaySelection
from worker.core.settled_letters import SettledLetters
from worker.errors import ArgumentsError, Fatal, SettingsError, StreamlabelError, TopicMissing
from worker.settings import Loaded, Settings, load

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.kafka_io.dead_letter_topic import DeadLetterTopic, LetterRange
    from worker.runtime.replay import CopyTopics, ReplayPlan

_DONE, _FAILED = 0, 1


def replay(args: argparse.Namespace, loaded: Loaded, filters: LetterFilters) -> int:
    """Replay dead letters; return 0, or 1 if it was stopped before the end.

    Raises:
        SettingsError: the group is the worker's own, or the topic is no place for copies.
        StreamlabelError: the replay failed; the same command goes on.
    """
    from worker.kafka_io.dead_letter_topic import DeadLetterTopic
    from worker.signals import stop_on_signals

    settings = _settings(args, loaded)
    level = settings.log.level if "log.level" in loaded.origins else "warning"
    logs.configure(level, settings.log.format)
    stop = threading.Event()
    stop_on_signals(stop)
    with DeadLetterTopic(settings, progress_line()) as topic:
        topic.require(filters.partitions)
        range_ = topic.range()
        copies = None if args.label else _copy_topics(args.to, settings, topic)
        starts = range_.starts if args.again else _positions(topic, settings, range_)
        settled = topic.settled(range_.ends) if args.again else topic.newest(range_.ends, starts)
        selection = _selection(args, filters, topic, settled, copies)
        if args.dry_run:
            return _dry_run(args, settings, topic, selection, range_.ends, starts)
        if args.again:
            _begin_again(topic, settings, range_)
        plan = _plan(args, settings, selection, topic, range_)
        try:
            _work(plan, copies, stop)
        except StreamlabelError:
            clear_progress()
            _report(args, settings, topic, plan, range_)
            raise
        clear_progress()
        left = _report(args, settings, topic, plan, range_)
    if left and not selection.full:
        print(
            "streamlabel: stopped before the end; the same command goes on from there",
            file=sys.stderr,
        )
        return _FAILED
    return _DONE


def _settings(args: argparse.Namespace, loaded: Loaded) -> Settings:
    """Return the settings of the replay: those of the worker, with a group of its own."""
    from worker.cli.dead_letters import OPTIONS

    given = {o.path: vars(args)[o.path] for o in options_of(OPTIONS) if o.path in vars(args)}
    common = {path: value for path, value in given.items() if path != "kafka.group_id"}
    worker_group = load(common, loaded.file).settings.kafka.group_id
    group = given.get("kafka.group_id") or f"{worker_group}-replay"
    if group == worker_group:
        raise SettingsError(
            f"--group-id {group} is the group of the worker itself: choose another one for the "
            "replay, or leave it out"
        )
    own = {"kafka.group_id": group} | ({"delivery": "exactly_once"} if args.exactly_once else {})
    settings = load(given | own, loaded.file).settings
    # A replay is no worker in a slot of the group, and its texts are no sample of the stream.
    kafka = settings.kafka.model_copy(update={"group_instance_id": None})
    drift = settings.drift.model_copy(update={"reference_records": 0})
    shadow = settings.shadow.model_copy(update={"name": ""})
    return settings.model_copy(update={"kafka": kafka, "drift": drift, "shadow": shadow})


def _copy_topics(to: str | None, settings: Settings, topic: DeadLetterTopic) -> CopyTopics:
    from worker.runtime.replay import CopyTopics

    if to in topic.topics.outputs:
        raise ArgumentsError(f"--to {to} is an output of the worker: copies belong into an input")
    names = topic.topics.inputs if to is None else (to,)
    infos = topic.admin.topics(names)
    if to is not None and infos[to] is None:
        raise TopicMissing(f"topic {to!r} of --to does not exist")
    known = {name: info for name, info in infos.items() if info is not None}
    return CopyTopics(known, settings.kafka.max_request_bytes)


def _selection(
    args: argparse.Namespace,
    filters: LetterFilters,
    topic: DeadLetterTopic,
    settled: SettledLetters,
    copies: CopyTopics | None,
) -> ReplaySelection:
    rules = ReplayRules(
        filters=filters,
        is_input=topic.topics.matches,
        to=args.to,
        limits=copies.limits if copies else None,
        include_cut=args.include_cut,
        max_attempts=args.max_attempts or MAX_ATTEMPTS,
        settled=settled,
    )
    return ReplaySelection(rules, args.limit)


def _plan(
    args: argparse.Namespace,
    settings: Settings,
    selection: ReplaySelection,
    topic: DeadLetterTopic,
    range_: LetterRange,
) -> ReplayPlan:
    from worker.runtime.replay import ReplayPlan, ReplayTally

    show, name = progress_line(), topic.name
    total = range_.offsets_from(_positions(topic, settings, range_))
    tally = ReplayTally(lambda: show(name, selection.counts.read, total))
    return ReplayPlan(settings, selection, range_.ends, args.rate, tally)


def _work(plan: ReplayPlan, copies: CopyTopics | None, stop: threading.Event) -> None:
    from worker.runtime.replay import copy_dead_letters

    if copies is not None:
        copy_dead_letters(plan, copies, stop)
        return
    from worker.inference.warm import loading
    from worker.runtime.serve import serve

    nothing = nullcontext[object]()
    serve(plan.settings, stop, loading, lambda *_: nothing, page=False, span=plan.source)


# -- positions -----------------------------------------------------------------------------------


def _positions(
    topic: DeadLetterTopic, settings: Settings, range_: LetterRange
) -> Mapping[int, int]:
    """Return where the group goes on, by partition."""
    committed = topic.admin.committed(settings.kafka.group_id, topic.name)
    return {p: max(start, committed.get(p, 0)) for p, start in range_.starts.items()}


def _begin_again(topic: DeadLetterTopic, settings: Settings, range_: LetterRange) -> None:
    """Move the group to the first dead letters.

    Raises:
        Fatal: the group has members.
    """
    from worker.core.records import Partition
    from worker.kafka_io.admin import GroupOffset

    group = settings.kafka.group_id
    if members := topic.admin.members(group):
        raise Fatal(
            f"group {group!r} has {counted(len(members), 'member')}: a replay is running, and "
            "--again would move it; stop it first"
        )
    starts = {Partition(topic.name, p): GroupOffset(at, "") for p, at in range_.starts.items()}
    topic.admin.set_offsets(group, starts)


# -- what it did ---------------------------------------------------------------------------------


def _dry_run(
    args: argparse.Namespace,
    settings: Settings,
    topic: DeadLetterTopic,
    selection: ReplaySelection,
    ends: Mapping[int, int],
    starts: Mapping[int, int],
) -> int:
    from worker.clock import SystemClock

    now_ms = SystemClock().wall_ms()
    for letter in topic.read(ends, starts):
        if not selection.is_beyond(letter.partition, letter.offset):
            selection.takes(letter, now_ms)
    clear_progress()
    counts = selection.counts
    document = _document(settings, counts) | {"dry_run": True, "would_replay": counts.taken}
    if args.json:
        print(json.dumps(document, ensure_ascii=False))
        return _DONE
    verb = "labelled at once" if args.label else "copied"
    for line in replay_lines(counts, done=f"{counts.taken:,} would be {verb}"):
        print(line)
    for name, numbers in (("of", counts.reasons), ("to", counts.targets)):
        if not (args.label and name == "to"):
            for key, number in numbers.most_common():
                print(f"  {name} {key}: {number:,}")
    return _DONE


def _document(settings: Settings, counts: ReplayCounts) -> dict[str, Any]:
    return {
        "topic": settings.topics.dead_letters,
        "group": settings.kafka.group_id,
        "delivery": settings.delivery,
        "read": counts.read,
        "filtered": counts.filtered,
        "refused": dict(counts.refused),
        "reasons": dict(counts.reasons),
        "targets": dict(counts.targets),
    }


def _report(
    args: argparse.Namespace,
    settings: Settings,
    topic: DeadLetterTopic,
    plan: ReplayPlan,
    range_: LetterRange,
) -> int:
    """Print what was done; return the number of offsets that are left below the end."""
    counts, tally = plan.selection.counts, plan.tally
    left = range_.offsets_from(_positions(topic, settings, range_))
    if args.json:
        done = {"replayed": tally.done, "dead_again": dict(tally.dead), "left": left}
        print(json.dumps(_document(settings, counts) | done, ensure_ascii=False))
        return left
    verb = "labelled" if args.label else "copied"
    done_words = f"{tally.done:,} {verb}"
    if again := tally.dead.total():
        done_words += f", {again:,} dead again"
    for line in replay_lines(counts, done=done_words):
        print(line)
    for reason, number in tally.dead.most_common():
        print(f"  dead again {number:,} x {reason}")
    passed = "those that were left out or refused" if counts.read else "all dead letters before"
    if counts.filtered or counts.refused or not counts.read:
        print(
            f"group {settings.kafka.group_id} has passed {passed}: --again begins at the first one"
        )
    if left:
        print(f"{counted(left, 'offset')} left below the end")
    return left
