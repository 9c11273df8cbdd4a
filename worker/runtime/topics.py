"""Checks a worker's topics and its group before it reads a record.

Owns: nothing. Missing topics are created if `create_topics` is set; otherwise the error has the
    command that creates them.
Thread: the main thread.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from worker.core.encoder import Encoder
from worker.core.records import ModelCard
from worker.core.topic_limits import TopicLimits
from worker.core.topics import Output, TopicInfo, combined, size_warning, topic_warnings
from worker.errors import BrokerAway, Fatal, SettingsError, StreamlabelError, TopicMissing
from worker.kafka_io.admin import Admin
from worker.logs import get_logger
from worker.runtime.formats import measured_results
from worker.settings import KafkaSettings, Settings, WorkerTopics, inline

log = get_logger(__name__)

DEFAULT_PARTITIONS = 6


def require(settings: Settings, found: Iterable[str] = ()) -> dict[str, TopicInfo]:
    """Return a description of each topic; create missing ones if `create_topics` is set.

    Args:
        settings: of the worker.
        found: with a pattern, the inputs to describe; default: those that match now.

    Raises:
        TopicMissing: the message has the command that creates the missing topics.
        Fatal: an input's output is an input too, or has no valid name.
        BrokerAway: no broker answers, or it does not know an input that was found.
    """
    with Admin(settings.kafka) as admin:
        topics = settings.topics.among(found) if found else admin.resolve(settings.topics)
        if conflicts := list(topics.conflicts()):
            raise Fatal("; ".join(conflicts))
        names = topics.all
        known = admin.topics(names)
        missing = [name for name in names if known[name] is None]
        if found and (away := set(missing).intersection(topics.inputs)):
            # It was deleted just now, or this broker does not know it yet.
            raise BrokerAway(f"the broker does not know {', '.join(sorted(away))}")
        if missing and not settings.create_topics:
            raise TopicMissing(_how_to_create(settings, missing))
        sizes = new_sizes(topics, known, DEFAULT_PARTITIONS)
        for name in missing:
            # Several workers may start at once; a topic that another one created is no error.
            admin.create(name, sizes[name])
            log.info("topic created", topic=name)
        if missing:
            known = admin.topics(names)
    return {name: info for name, info in known.items() if info is not None}


def new_sizes(
    topics: WorkerTopics, known: Mapping[str, TopicInfo | None], default: int
) -> dict[str, int]:
    """Return how many partitions a new topic gets: an output, as many as its largest input.

    Args:
        topics: of the worker.
        known: describes each of them that exists.
        default: partitions of an input that does not exist.
    """
    inputs = {}
    for name in topics.inputs:
        info = known[name]
        inputs[name] = info.partitions if info else default
    return inputs | {
        output: max((inputs[name] for name in names), default=default)
        for output, names in topics.all_feeds
    }


def suitability_warnings(settings: Settings, infos: Mapping[str, TopicInfo]) -> list[str]:
    """Return warnings about topics that do not suit each other, a sentence each."""
    topics = settings.topics.among(infos)

    def output(name: str, inputs: Iterable[str]) -> Output:
        return Output(name, infos[name], combined(infos[one] for one in inputs))

    warnings = topic_warnings(
        [output(*fed) for fed in topics.result_feeds],
        output(topics.dead_letters, topics.inputs),
        [output(topics.filtered, topics.inputs)] if topics.filtered else (),
        keeps_event_time=settings.output.timestamp == "event",
    )
    if not topics.inputs:
        warnings.append(
            f"no topic matches input.topic_pattern = {topics.pattern!r} yet: a worker waits for one"
        )
    return warnings


def result_size_warning(
    settings: Settings, infos: Mapping[str, TopicInfo], card: ModelCard
) -> str | None:
    """Return a warning if a result of the model may be larger than its topic accepts.

    With several topics of results, it names the one with the lowest limit.

    Args:
        settings: name the topics.
        infos: their descriptions.
        card: of the model.

    Raises:
        SettingsError: every result would be too large.
    """
    outputs = [Output(name, infos[name]) for name in settings.topics.among(infos).all_results]
    if not outputs:
        return None
    encoder = Encoder(
        settings.output,
        version="",
        limits=defaultdict(TopicLimits),
        results=measured_results(settings),
    )
    smallest, usual = encoder.sizes(card)
    narrowest = min(outputs, key=lambda output: output.info.max_message_bytes or math.inf)
    cards = [one for _, one in card.members] or [card]
    labels = sum(len(one.labels) for one in cards)
    warning = size_warning(narrowest, smallest, usual, labels)
    if warning and smallest > (narrowest.info.max_message_bytes or 0):
        raise SettingsError(warning)
    return warning


def count_members(kafka: KafkaSettings) -> int | str:
    """Return the number of members in the group; "unknown" if the group can't be asked.

    Asked before the worker joins: every member has to rejoin then, so the number explains a join
    that takes long. A failure is no reason not to join.
    """
    with suppress(StreamlabelError), Admin(kafka) as admin:
        return len(admin.members(kafka.group_id))
    return "unknown"


def _how_to_create(settings: Settings, missing: Sequence[str]) -> str:
    servers, topics = settings.kafka.bootstrap_servers, settings.topics
    flags = {
        "--bootstrap-servers": servers,
        "--output-topic": topics.output,
        "--output-dead-letter-topic": topics.dead_letters,
    }
    if topics.pattern is not None:
        flags["--input-topic-pattern"] = topics.pattern
    else:
        several = len(topics.inputs) > 1
        flags["--input-topics" if several else "--input-topic"] = ",".join(topics.inputs)
    if topics.filtered:
        flags["--output-filtered-topic"] = topics.filtered
    if topics.routed:  # as `also`, each is reached
        names = dict.fromkeys(topic for _, topic in topics.routed)
        flags["--routes"] = inline([{"topic": name, "also": True} for name in names])
    command = " ".join(f"{flag} {shlex.quote(value)}" for flag, value in flags.items())
    wait = "; with wait_for_topics = true the worker waits for them"
    if settings.wait_for_topics or sys.stderr.isatty():  # a person creates them and starts again
        wait = ""
    return (
        f"topics missing on {servers}: {', '.join(missing)}; create them with "
        f"`streamlabel topics create {command}`, or start the worker with --create-topics{wait}"
    )
