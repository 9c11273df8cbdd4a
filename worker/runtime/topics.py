"""Checks a worker's topics and its group before it reads a record.

Owns: nothing. Missing topics are created if `create_topics` is set; otherwise the error has the
    command that creates them.
Thread: the main thread.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from worker.core.encoder import Encoder
from worker.core.formats.format import ResultFormat
from worker.core.records import ModelCard
from worker.core.topic_limits import TopicLimits
from worker.core.topics import Output, TopicInfo, size_warning, topic_warnings
from worker.errors import SettingsError, StreamlabelError, TopicMissing
from worker.kafka_io.admin import Admin
from worker.logs import get_logger
from worker.settings import KafkaSettings, Settings

log = get_logger(__name__)

DEFAULT_PARTITIONS = 6


def require(settings: Settings) -> dict[str, TopicInfo]:
    """Return a description of each topic; create missing ones if `create_topics` is set.

    Raises:
        TopicMissing: the message has the command that creates the missing topics.
        BrokerAway: no broker answers.
    """
    names = settings.topics.all
    with Admin(settings.kafka) as admin:
        known = admin.topics(names)
        missing = [name for name in names if known[name] is None]
        if missing and not settings.create_topics:
            raise TopicMissing(_how_to_create(settings, missing))
        source = known[settings.input.topic]
        for name in missing:
            # Several workers may start at once; a topic that another one created is no error.
            admin.create(name, source.partitions if source else DEFAULT_PARTITIONS)
            log.info("topic created", topic=name)
        if missing:
            known = admin.topics(names)
    return {name: info for name, info in known.items() if info is not None}


def suitability_warnings(settings: Settings, topics: Mapping[str, TopicInfo]) -> list[str]:
    """Return warnings about topics that do not suit each other, a sentence each."""
    source, output, dead_letters = settings.topics.all
    return topic_warnings(
        topics[source],
        Output(output, topics[output]),
        Output(dead_letters, topics[dead_letters]),
        keeps_event_time=settings.output.timestamp == "event",
    )


def result_size_warning(
    settings: Settings, topics: Mapping[str, TopicInfo], card: ModelCard, results: ResultFormat
) -> str | None:
    """Return a warning if a result of the model may be larger than its topic accepts.

    Args:
        settings: name the topics.
        topics: their descriptions.
        card: of the model.
        results: serialises results.

    Raises:
        SettingsError: every result would be too large.
    """
    name = settings.topics.output
    encoder = Encoder(
        settings.output,
        card,
        version="",
        limits=TopicLimits(),
        dead_letter_limits=TopicLimits(),
        results=results,
    )
    smallest, usual = encoder.sizes()
    warning = size_warning(Output(name, topics[name]), smallest, usual, len(card.labels))
    if warning and smallest > (topics[name].max_message_bytes or 0):
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
    servers = settings.kafka.bootstrap_servers
    source, output, dead_letters = settings.topics.all
    return (
        f"topics missing on {servers}: {', '.join(missing)}. Create them with\n"
        f"  streamlabel topics create --bootstrap-servers {servers} --input-topic {source} "
        f"--output-topic {output} --output-dead-letter-topic {dead_letters}\n"
        "or start the worker with --create-topics"
    )
