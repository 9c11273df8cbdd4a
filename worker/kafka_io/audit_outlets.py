"""Finds the topics of outcomes for `streamlabel audit`, and what was removed from them.

Owns: nothing; it asks the admin client.
Thread: main, of `streamlabel audit`.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from worker.core.audited_topics import AuditedTopics, audited_topics
from worker.core.outcome_order import Outlet, Removed
from worker.core.records import Partition
from worker.core.topics import TopicInfo
from worker.errors import TopicMissing
from worker.kafka_io.admin import Admin
from worker.settings import Settings, WorkerTopics


def find_outlets(
    admin: Admin, settings: Settings, topics: WorkerTopics, more: Sequence[str] = ()
) -> AuditedTopics:
    """Return the topics of outcomes, as `audited_topics` does."""
    existing = admin.names() if settings.routes else ()
    return audited_topics(topics, settings.routes, settings.output.filtered_topic, existing, more)


def describe(
    admin: Admin, servers: str, topics: WorkerTopics, outlets: AuditedTopics
) -> dict[str, TopicInfo]:
    """Describe every topic; one that only a route names may be absent, as before its first use.

    Raises:
        TopicMissing: there is no input, or a topic that the worker needs does not exist.
    """
    if not topics.inputs:
        raise TopicMissing(
            f"nothing to audit: no topic on {servers} matches input.topic_pattern = "
            f"{topics.pattern!r}"
        )
    infos = admin.topics(dict.fromkeys((*topics.required, *(o.topic for o in outlets.feeds))))
    missing = ", ".join(name for name in topics.required if infos[name] is None)
    if missing:
        raise TopicMissing(
            f"nothing to audit: missing on {servers}: {missing} "
            "(`streamlabel topics create` creates the topics)"
        )
    return {name: info for name, info in infos.items() if info is not None}


def removed_from(
    outlets: AuditedTopics,
    partitions: Iterable[Partition],
    starts: Mapping[str, Mapping[int, int]],
    infos: Mapping[str, TopicInfo],
) -> Removed:
    """Find input partitions whose outcomes were removed; the value is True for compaction.

    Args:
        outlets: the topics of outcomes.
        partitions: of the inputs.
        starts: start offset of each partition of each topic of outcomes.
        infos: describes the topics.
    """
    removed: dict[tuple[Outlet, Partition], bool] = {}
    for partition in partitions:
        for outlet in outlets.of(partition.topic):
            if (name := outlet.topic) in starts:
                compacted = infos[name].compacted
                if compacted or is_cut(partition, starts[name]):
                    removed[outlet, partition] = compacted
    return removed


def is_cut(partition: Partition, starts: Mapping[int, int]) -> bool:
    """Return whether the first outcomes of an input partition may be gone from a topic.

    Args:
        partition: of the input.
        starts: of the topic's partitions.
    """
    return starts[partition.partition % len(starts)] > 0
