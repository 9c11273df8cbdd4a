"""Tells the group's offsets of a topic from those of an earlier topic of the same name.

Owns: the offsets of other topics that the group had; the note of each commit.
Thread: the client's IO thread reads notes, the poll thread asks; `note` is for any thread.
Must not import: inference, runtime.

A commit names a topic, not its id. A worker that has not noticed yet that its topic was deleted and
created again commits an offset of the deleted one, and the group takes it for an offset of the new
one. Walked through: a worker has read up to offset 500; the topic is deleted and created again; the
worker commits 500; it notices, and ends; the new topic has 800 records by then, and the next worker
would skip 500 of them. So each commit has the topic's id as its metadata (its *note*), and an
offset with the id of another topic counts as none.

An offset without an id counts: an earlier version committed it, or another program. So does one
that names another cluster: a mirror of a cluster (MirrorMaker 2, `sync.group.offsets.enabled`)
translates the offset and copies the metadata, and its topics have ids of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.clock import Clock
from worker.core.records import Partition
from worker.kafka_io.internals import consumer_metadata, coordinator_of, refreshed_at
from worker.kafka_io.topic_watch import PATIENCE
from worker.logs import get_logger

log = get_logger(__name__)

_NAME: Final = "streamlabel_topic"
_CLUSTER: Final = "cluster"


class TopicNotes:
    """The notes of one consumer's commits.

    Args:
        consumer: the library's; its coordinator is a `membership` one.
        id_of: any thread: returns the id of the topic that is read under a name; None if unknown.
        clock: of the metadata.
    """

    def __init__(self, consumer: Any, id_of: Callable[[str], Any], clock: Clock) -> None:
        self._metadata, self._id_of, self._clock = consumer_metadata(consumer), id_of, clock
        # (partition, note of its other topic) -> when it was noticed
        self._others: dict[tuple[Partition, str], float] = {}
        coordinator_of(consumer).own_offsets = self._own

    def note(self, partition: Partition) -> str:
        """Any thread: return the note of an offset that is read now; empty without an id."""
        return self._note_of(self._id_of(partition.topic))

    def _note_of(self, topic_id: Any) -> str:
        if topic_id is None:
            return ""
        return json.dumps({_NAME: str(topic_id), _CLUSTER: self._metadata.cluster_id})

    def _own(self, offsets: Mapping[Any, Any]) -> dict[Any, Any]:
        """IO thread: return the offsets that are not of another topic."""
        own = {}
        for tp, offset in offsets.items():
            known = self._note_of(self._metadata.topic_id(tp.topic))
            if not name_different_topics(offset.metadata, known):
                own[tp] = offset
            elif (other := (Partition(*tp), offset.metadata)) not in self._others:
                self._others[other] = self._clock.monotonic()
                log.warning(
                    "the group's offset is of a deleted topic of this name, and does not count",
                    topic=tp.topic,
                    partition=tp.partition,
                    offset=offset.offset,
                )
        return own

    def remade(self, partition: Partition) -> bool:
        """Poll thread: return whether the group had an offset of another topic of the name."""
        return any(partition == other for other, _ in tuple(self._others))

    def settled(self) -> bool:
        """Poll thread: return whether brokers have confirmed the topics' ids since.

        The metadata may be older than the offset. Then this worker reads the deleted topic, and
        must not commit a position in it. The watch on the topic's id ends it with new metadata,
        which a broker that lags may lack for a while.
        """
        noticed_at = max(self._others.values(), default=None)
        if noticed_at is None or refreshed_at(self._metadata) - noticed_at > PATIENCE:
            return True
        self._metadata.request_update()
        return False


def name_different_topics(note: str | None, other: str | None) -> bool:
    """Return whether two notes name two topics of one cluster."""
    if differ(_read(note, _CLUSTER), _read(other, _CLUSTER)):
        return False
    return differ(read_topic(note), read_topic(other))


def read_topic(note: str | None) -> str | None:
    """Return the id of a topic in a note, or None for any other text."""
    return _read(note, _NAME)


def differ(one: Any, other: Any) -> bool:
    """Return whether two ids differ; an unknown one (None) is no difference."""
    return None not in (one, other) and one != other


def _read(note: str | None, name: str) -> str | None:
    try:
        value = json.loads(note or "")[name]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None
