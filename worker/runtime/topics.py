"""The topics and the group that a worker finds: topics that are missing are made, or told how to.

Also whether they suit each other and the model, before a record is written to them.

Called on the main thread before any record is read. Imports kafka_io.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from worker.core.encoder import Encoder
from worker.core.records import ModelCard
from worker.core.topic_limits import TopicLimits
from worker.core.topics import Output, TopicInfo, size_warning, topic_warnings
from worker.errors import SettingsError, StreamlabelError, TopicMissing
from worker.kafka_io.admin import Admin
from worker.logs import get_logger
from worker.settings import Settings

log = get_logger(__name__)

DEFAULT_PARTITIONS = 6


def require(settings: Settings) -> dict[str, TopicInfo]:
    """What there is of each topic, made first where it is missing and `create_topics` is on.

    Raises:
        TopicMissing: the message has the command that creates what is missing.
        BrokerAway: nobody answers.
    """
    wanted = settings.topics.all
    with Admin(settings.kafka) as admin:
        found = admin.topics(wanted)
        missing = [name for name in wanted if found[name] is None]
        if missing and not settings.create_topics:
            raise TopicMissing(_how_to_create(settings, missing))
        source = found[settings.input.topic]
        for name in missing:
            # Several workers may start at once: that one of them was faster is no fault.
            admin.create(name, source.partitions if source else DEFAULT_PARTITIONS)
            log.info("topic created", topic=name)
        there = admin.topics(wanted) if missing else found
    return {name: info for name, info in there.items() if info is not None}


def judged(settings: Settings, topics: Mapping[str, TopicInfo]) -> list[str]:
    """Doubts about the topics, a sentence each."""
    source, output, dead = settings.topics.all
    return topic_warnings(
        topics[source],
        Output(output, topics[output]),
        Output(dead, topics[dead]),
        keeps_event_time=settings.output.timestamp == "event",
    )


def fit(settings: Settings, topics: Mapping[str, TopicInfo], card: ModelCard) -> str | None:
    """A sentence where a result of the model may be larger than its topic takes.

    Raises:
        SettingsError: each would be.
    """
    name = settings.output.topic
    encoder = Encoder(
        settings.output, card, version="", limits=TopicLimits(), dead_letter_limits=TopicLimits()
    )
    least, usual = encoder.sizes()
    said = size_warning(Output(name, topics[name]), least, usual, len(card.labels))
    if said and least > (topics[name].max_message_bytes or 0):
        raise SettingsError(said)
    return said


def others(settings: Settings) -> int | str:
    """Say how many members the group has, before it is joined: they all have to join again.

    "unknown" if the group can't be asked, which is no reason not to join.
    """
    found: int | str = "unknown"
    with suppress(StreamlabelError), Admin(settings.kafka) as admin:
        found = len(admin.members(settings.kafka.group_id))
    log.info("joining the group", group=settings.kafka.group_id, others=found)
    return found


def _how_to_create(settings: Settings, missing: Sequence[str]) -> str:
    servers = settings.kafka.bootstrap_servers
    source, output, dead = settings.topics.all
    return (
        f"topics missing on {servers}: {', '.join(missing)}. Create them with\n"
        f"  streamlabel topics create --bootstrap-servers {servers} --input-topic {source} "
        f"--output-topic {output} --output-dead-letter-topic {dead}\n"
        "or start the worker with --create-topics"
    )
