"""Reads the group's committed offsets without joining the group.

Owns: a consumer, for the time of a call.
Thread: publish.
Must not import: inference, runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from kafka import KafkaConsumer, TopicPartition

from worker.core.records import Partition
from worker.kafka_io.connection import CONSUMER_OPTIONS, connect
from worker.settings import Settings


def committed_offsets(settings: Settings, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Return the group's stable offsets, -1 for none.

    Raises:
        BrokerAway, AccessDenied, Fatal: as `connect`.
        KafkaError: the broker did not answer.
    """
    # A read_committed consumer waits for transactions that may still be aborted.
    consumer = connect(
        KafkaConsumer, settings.kafka, **CONSUMER_OPTIONS, group_id=settings.kafka.group_id
    )
    timeout_ms = settings.kafka.request_timeout * 1000
    with contextlib.closing(consumer):
        offsets = {
            p: consumer.committed(TopicPartition(*p), timeout_ms=timeout_ms) for p in partitions
        }
    return {partition: -1 if offset is None else offset for partition, offset in offsets.items()}
