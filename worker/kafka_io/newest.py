"""Reads the newest records of a topic, for `streamlabel check`.

Owns: a consumer without a group; it commits nothing.
Thread: main.
Must not import: inference, runtime.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from worker.clock import Clock
from worker.core.records import RawRecord
from worker.errors import TopicMissing
from worker.kafka_io.bounded_poll import BoundedPoller
from worker.kafka_io.connection import connect_reader
from worker.kafka_io.conversion import raw_record
from worker.kafka_io.translation import translate
from worker.settings import Settings

# Transaction markers, aborted and compacted records have offsets too.
_OFFSETS_PER_RECORD = 4
_POLL_MS = 200
_PARTITION_TIMEOUT = 5.0  # seconds


def newest(settings: Settings, each: int, clock: Clock) -> Iterator[RawRecord]:
    """Yield the newest committed records of the input topics, partition by partition.

    Args:
        settings: cluster, topics, and the limit of a record's size.
        each: maximum number of records of a partition.
        clock: bounds the wait for a partition that does not answer.

    Raises:
        TopicMissing: a topic does not exist.
        BrokerAway, AccessDenied, Fatal: the client's exception, translated.
    """
    consumer = connect_reader(settings.kafka)
    poller = BoundedPoller(consumer, max_record_bytes=settings.max_inflight_bytes)
    try:
        with contextlib.closing(consumer):
            for topic in settings.topics.among(consumer.topics()).inputs:
                numbers = consumer.partitions_for_topic(topic)
                if not numbers:
                    raise TopicMissing(
                        f"topic {topic!r} does not exist (`streamlabel topics create`)"
                    )
                for number in sorted(numbers):
                    yield from _newest(consumer, poller, TopicPartition(topic, number), each, clock)
    except KafkaError as error:
        raise translate(error) from error


def _newest(
    consumer: Any, poller: BoundedPoller, tp: TopicPartition, each: int, clock: Clock
) -> Iterator[RawRecord]:
    consumer.assign([tp])
    start, end = consumer.beginning_offsets([tp])[tp], consumer.end_offsets([tp])[tp]
    consumer.seek(tp, max(start, end - each * _OFFSETS_PER_RECORD))
    records: deque[RawRecord] = deque(maxlen=each)
    deadline = clock.monotonic() + _PARTITION_TIMEOUT
    while consumer.position(tp) < end and clock.monotonic() < deadline:
        for record in poller.poll(_POLL_MS, each).get(tp, ()):
            records.append(raw_record(record, 0, clock.monotonic(), clock.wall_ms()))
    yield from records
