"""A worker that labels a range: where it begins, where it ends, and who knows it."""

from __future__ import annotations

from typing import Any

import pytest
from kafka import KafkaAdminClient

from tests.conftest import Broker, MakeTopics, Topics
from tests.support.workers import ObedientModel, WorkerThread, flags, produce, read, texts
from worker.core.when import Span, parse_when
from worker.settings import load

MODES = ("at_least_once", "exactly_once")


def span(start: str, end: str, group: str = "") -> Span:
    return Span(parse_when(start, 0), parse_when(end, 0), group)


def worker(broker: Broker, topics: Topics, range_: Span, **more: Any) -> WorkerThread:
    model = ObedientModel()
    settings = load(flags(broker, topics) | more, environ={}).settings
    return WorkerThread(settings, model, model, span=range_)


def outcomes(broker: Broker, topics: Topics) -> dict[int, list[int]]:
    """Return the offsets of the records with a result, by partition, in the results' order."""
    found: dict[int, list[int]] = {}
    for record in read(broker, topics.output, topics.partitions):
        source = dict(record.headers)["streamlabel-source"].decode()
        _, partition, offset = source.rsplit("/", 2)
        found.setdefault(int(partition), []).append(int(offset))
    return found


@pytest.mark.parametrize("delivery", MODES)
def test_a_range_is_labelled_and_nothing_else(
    broker: Broker, make_topics: MakeTopics, admin: KafkaAdminClient, delivery: str
) -> None:
    topics = make_topics(partitions=3)
    for partition in range(2):  # the third one is empty
        produce(broker, topics.input, texts(60), partition=partition)
    ended = worker(broker, topics, span("0:10,1:20", "0:25,1:50"), delivery=delivery)
    ended.join(60)
    assert ended.error is None
    assert outcomes(broker, topics) == {0: list(range(10, 25)), 1: list(range(20, 50))}
    committed = admin.list_group_offsets(topics.group)[topics.group]
    assert {tp.partition: at.offset for tp, at in committed.items()} == {0: 25, 1: 50, 2: 0}
