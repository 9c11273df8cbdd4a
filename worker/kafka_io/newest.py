"""The newest records of a topic, for `streamlabel check`: no group is joined, nothing committed.

The main thread. Translates the client's exceptions; imports core and the ground floor.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from worker.clock import Clock
from worker.core.records import RawRecord
from worker.errors import TopicMissing
from worker.kafka_io.connection import connect
from worker.kafka_io.polled import raw_record
from worker.kafka_io.portions import Portions
from worker.kafka_io.translation import translate
from worker.settings import Settings

# Markers of transactions, aborted and compacted records have offsets too.
_OFFSETS_A_RECORD = 4
_POLL_MS = 200
_PATIENCE = 5.0  # seconds for one partition


def newest(settings: Settings, each: int, clock: Clock) -> Iterator[RawRecord]:
    """The newest committed records of the input topic, partition by partition.

    Args:
        settings: cluster, topic, and how large a record may be.
        each: records of each partition, at most.
        clock: bounds the wait for a partition that does not answer.

    Raises:
        TopicMissing: there is no such topic.
        BrokerAway, AccessDenied, Fatal: as the client says.
    """
    topic = settings.input.topic
    consumer = connect(
        KafkaConsumer,
        settings.kafka,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        allow_auto_create_topics=False,
    )
    portions = Portions(consumer, largest=settings.max_inflight_bytes)
    try:
        with contextlib.closing(consumer):
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise TopicMissing(f"there is no topic {topic!r} (`streamlabel topics create`)")
            for number in sorted(numbers):
                yield from _of(consumer, portions, TopicPartition(topic, number), each, clock)
    except KafkaError as error:
        raise translate(error) from error


def _of(
    consumer: Any, portions: Portions, tp: TopicPartition, each: int, clock: Clock
) -> Iterator[RawRecord]:
    consumer.assign([tp])
    start, end = consumer.beginning_offsets([tp])[tp], consumer.end_offsets([tp])[tp]
    consumer.seek(tp, max(start, end - each * _OFFSETS_A_RECORD))
    found: deque[RawRecord] = deque(maxlen=each)
    give_up = clock.monotonic() + _PATIENCE
    while consumer.position(tp) < end and clock.monotonic() < give_up:
        for record in portions.poll(_POLL_MS, each).get(tp, ()):
            found.append(raw_record(record, 0, clock.monotonic(), clock.wall_ms()))
    yield from found
