"""Reads where a group is: its offsets, the ends of its logs, and the times of its next records.

Owns: consumers, for the time of a call.
Thread: main, of a command.
Must not import: inference, runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, KafkaTimeoutError, UnstableOffsetCommitError

from worker.clock import Clock
from worker.core.records import Partition
from worker.core.resets import Place
from worker.errors import TopicMissing
from worker.kafka_io.admin import Admin
from worker.kafka_io.bounded_poll import BoundedPoller
from worker.kafka_io.connection import CONSUMER_OPTIONS, connect, connect_reader
from worker.kafka_io.internals import coordinator_of
from worker.kafka_io.translation import translate
from worker.settings import Settings

_TIMES_TIMEOUT = 5.0  # seconds for the records of all partitions
_POLL_MS = 200
_FETCH_BYTES = 64 * 1024  # one record of each partition is wanted
_STABLE_TIMEOUT_MS = 1_000


def input_partitions(admin: Admin, settings: Settings) -> list[Partition]:
    """Return the partitions of the inputs that exist now.

    Raises:
        TopicMissing: an input does not exist, or none matches the pattern.
    """
    topics = admin.resolve(settings.topics)
    if not topics.inputs:
        raise TopicMissing(f"no topic matches input.topic_pattern = {topics.pattern!r}")
    infos = admin.topics(topics.inputs)
    if missing := [name for name, info in infos.items() if info is None]:
        raise TopicMissing(
            f"missing on {settings.kafka.bootstrap_servers}: {', '.join(missing)} "
            "(`streamlabel topics create` creates the topics)"
        )
    return [
        Partition(name, number)
        for name, info in infos.items()
        for number in range(info.partitions if info else 0)
    ]


def places(admin: Admin, group: str, partitions: Collection[Partition]) -> list[Place]:
    """Return these partitions with the group's offsets."""
    committed = admin.group_offsets(group)
    starts = admin.offsets(partitions, OffsetSpec.EARLIEST)
    ends = admin.offsets(partitions, OffsetSpec.LATEST)
    return [
        Place(p, starts[p], ends[p], committed[p].offset, committed[p].note)
        if p in committed
        else Place(p, starts[p], ends[p], None)
        for p in sorted(partitions)
    ]


def pending(settings: Settings, partitions: Collection[Partition]) -> list[Partition]:
    """Return the partitions whose offset is part of a transaction that is still open.

    Raises:
        BrokerAway, AccessDenied: as `connect`.
    """
    consumer = connect(
        KafkaConsumer, settings.kafka, **CONSUMER_OPTIONS, group_id=settings.kafka.group_id
    )
    with contextlib.closing(consumer):
        if _stable(consumer, partitions):
            return []
        return [p for p in sorted(partitions) if not _stable(consumer, [p])]


def _stable(consumer: KafkaConsumer, partitions: Collection[Partition]) -> bool:
    tps = [TopicPartition(*partition) for partition in partitions]
    try:
        coordinator_of(consumer).fetch_committed_offsets(tps, timeout_ms=_STABLE_TIMEOUT_MS)
    except (KafkaTimeoutError, UnstableOffsetCommitError):
        return False
    except KafkaError as error:
        raise translate(error) from error
    return True


def record_times(
    settings: Settings, offsets: Mapping[Partition, int], clock: Clock
) -> dict[Partition, int]:
    """Return the timestamp (ms since 1970 UTC) of the record at or after each offset.

    A partition without one, or whose record does not arrive in time, is left out.

    Raises:
        BrokerAway, AccessDenied: as `connect`.
    """
    times: dict[Partition, int] = {}
    if not offsets:
        return times
    consumer = connect_reader(settings.kafka, max_partition_fetch_bytes=_FETCH_BYTES)
    poller = BoundedPoller(consumer, max_record_bytes=settings.max_inflight_bytes)
    deadline = clock.monotonic() + _TIMES_TIMEOUT
    try:
        with contextlib.closing(consumer):
            consumer.assign([TopicPartition(*partition) for partition in offsets])
            for partition, offset in offsets.items():
                consumer.seek(TopicPartition(*partition), offset)
            while len(times) < len(offsets) and clock.monotonic() < deadline:
                for tp, records in poller.poll(_POLL_MS, 1).items():
                    times[Partition(*tp)] = records[0].timestamp
                    consumer.pause(tp)
    except KafkaError as error:
        raise translate(error) from error
    return times
