"""Committed offsets name their topic's id, so that those of a deleted topic do not count."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition

from tests.support.clocks import HandClock
from worker.core.bounds import Bound
from worker.core.records import Partition
from worker.core.resets import Place
from worker.kafka_io.topic_notes import TopicNotes, read_topic
from worker.kafka_io.topic_watch import PATIENCE

TP = TopicPartition("in", 0)
OLD, NEW = uuid.UUID(int=1), uuid.UUID(int=2)
RANGE = Bound(0, 9).note()


class NotedConsumer:
    """A consumer with its coordinator and its metadata, whose topic and cluster have an id."""

    def __init__(self, topic_id: uuid.UUID | None, cluster_id: str | None = "here") -> None:
        self._coordinator = self._cluster = self
        self.cluster_id = cluster_id
        self.known, self.asked = topic_id, 0
        self._last_successful_refresh_ms = 0.0
        self.own_offsets: Any = None

    def topic_id(self, name: str) -> uuid.UUID | None:
        return self.known if name == "in" else None

    def request_update(self) -> None:
        self.asked += 1

    def own(self, note: str) -> bool:
        """Fetch an offset with this note; return whether it counts."""
        offsets = {TP: OffsetAndMetadata(500, note, -1)}
        counted = self.own_offsets(offsets)
        assert counted in ({}, offsets)
        return bool(counted)


def _note(topic_id: uuid.UUID | None, cluster_id: str | None = "here") -> str:
    consumer = NotedConsumer(topic_id, cluster_id)
    return TopicNotes(consumer, lambda _: topic_id, HandClock()).note(Partition(*TP))


@pytest.mark.parametrize(
    ("note", "known", "counts"),
    [
        (_note(NEW), NEW, True),
        (_note(OLD), NEW, False),
        (_note(OLD), None, True),  # the broker has no ids, or does not know the topic now
        (_note(OLD, "there"), NEW, True),  # this cluster mirrors the other one
        (_note(OLD, None), NEW, False),  # the broker that took the commit has no id of its cluster
        ("", NEW, True),  # of an earlier version
        (RANGE, NEW, True),
        ("another program's", NEW, True),
        ('{"streamlabel_topic": 7}', NEW, True),
        ("[]", NEW, True),
    ],
)
def test_an_offset_counts_unless_it_names_another_topic(
    note: str, known: uuid.UUID | None, counts: bool
) -> None:
    consumer = NotedConsumer(known)
    notes = TopicNotes(consumer, lambda _: known, HandClock())
    assert consumer.own(note) is counts
    assert notes.remade(Partition(*TP)) is not counts
    assert not notes.remade(Partition("in", 1))
    assert counts or not notes.settled()


def test_the_note_names_the_topic_that_is_read() -> None:
    assert read_topic(_note(OLD)) == str(OLD)
    assert _note(None) == ""


def test_no_position_is_chosen_before_a_broker_confirms_the_topic() -> None:
    """The metadata may be older than the offset, which another worker committed in a new topic."""
    clock, consumer = HandClock(), NotedConsumer(OLD)
    notes = TopicNotes(consumer, lambda _: OLD, clock)
    assert notes.settled()
    clock.sleep(5)
    noticed_at = clock.now
    assert not consumer.own(_note(NEW))
    assert not notes.settled()
    assert consumer.asked == 1
    clock.sleep(1)
    assert not consumer.own(_note(NEW)), "the client fetches it again at each poll"
    consumer._last_successful_refresh_ms = 1000 * (noticed_at + PATIENCE - 0.5)
    assert not notes.settled(), "the broker may lag"
    consumer._last_successful_refresh_ms = 1000 * (noticed_at + PATIENCE + 0.5)
    assert notes.settled(), "counted from the first fetch of the offset"


@pytest.mark.parametrize(("note", "kept"), [(_note(OLD), ""), (RANGE, RANGE), ("", "")])
def test_a_reset_keeps_the_note_of_a_range_alone(note: str, kept: str) -> None:
    """An offset that someone chooses counts in the topic that there is."""
    assert Place(Partition(*TP), 0, 9, 5, note).kept_note == kept
