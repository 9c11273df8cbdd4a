"""Reads the group's committed offsets without joining the group.

Owns: a consumer, for the time of a call.
Thread: publish.
Must not import: inference, runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition

from worker.core.records import Partition
from worker.kafka_io.connection import CONSUMER_OPTIONS, connect
from worker.kafka_io.leader_epochs import UNKNOWN
from worker.settings import Settings


class CommittedOffset(NamedTuple):
    """A group's offset in a partition, -1 for none, with the epoch of the leader before it."""

    offset: int
    leader_epoch: int = UNKNOWN

    def covers(self, offset: int, leader_epoch: int) -> bool:
        """Return whether the group is done with a record.

        It is not if a later leader wrote the record than the one before the group's offset: epochs
        never fall in a log, so that offset belongs to a log that was truncated since.

        Args:
            offset: of the record.
            leader_epoch: of the leader that wrote it, or UNKNOWN.
        """
        if self.leader_epoch != UNKNOWN and leader_epoch > self.leader_epoch:
            return False
        return offset < self.offset


def committed_offsets(
    settings: Settings, partitions: Iterable[Partition]
) -> dict[Partition, CommittedOffset]:
    """Return the group's stable offsets.

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
        found = {
            p: consumer.committed(TopicPartition(*p), metadata=True, timeout_ms=timeout_ms)
            for p in partitions
        }
    return {
        partition: CommittedOffset(at.offset, at.leader_epoch) if at else CommittedOffset(-1)
        for partition, at in found.items()
    }
