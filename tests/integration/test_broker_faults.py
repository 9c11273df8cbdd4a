"""Faults of a broker: deleted topics and records, refusals, quotas.

One test for each row of the table in `kafka_io/translation.py` that a single broker can show.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.protocol.admin import AlterClientQuotasRequest

from tests.conftest import Broker, MakeTopics, Topics
from tests.support.workers import (
    ObedientModel,
    alter,
    audit,
    count,
    delete_topic,
    needs_kafka,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.core.state import State
from worker.errors import CircuitOpen, TopicMissing

pytestmark = pytest.mark.integration

SMALL: dict[str, Any] = {"batch__max_records": 16, "max_inflight_records": 64}


class OddName(str):
    """A header name that is not UTF-8."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xfftr\xe9"


# -- records -----------------------------------------------------------------------------------


def test_a_header_name_that_is_not_utf8_does_not_block_its_partition(
    broker: Broker, topics: Topics
) -> None:
    """The record is labelled, and the name is published with its bytes escaped."""
    odd = [("first", b"1"), (OddName("odd"), b"2")]
    produce(broker, topics.input, texts(20))
    produce(broker, topics.input, texts(20, start=20), headers=odd)
    produce(broker, topics.input, texts(20, start=40))
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 60, what="all are labelled")
    headers = [record.headers[:-1] for record in read(broker, topics.output, 3)]
    assert headers.count([("first", b"1"), ("\\xfftr\\xe9", b"2")]) == 20
    assert headers.count([]) == 40
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["dead_lettered"]) == (60, 0)


@pytest.mark.parametrize("start", ["earliest", "latest"])
@pytest.mark.parametrize("topics", [1], indirect=True)
def test_records_that_retention_deletes_first_are_reported_and_the_rest_is_labelled(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, start: str
) -> None:
    """`input.start = "latest"` does not skip the records that are left."""
    needs_kafka(broker, "keeps no position out of range")
    gate = threading.Event()
    only = TopicPartition(topics.input, 0)
    with running(
        broker, topics, ObedientModel(lambda _: gate.wait(60) and None), input__start=start, **SMALL
    ) as worker:
        wait_until(
            lambda: worker.value("streamlabel_partitions_begun_total") == 1,
            what="it knows where the partition ends, as a group that starts there must",
        )
        produce(broker, topics.input, texts(100))
        wait_until(lambda: worker.progress.state is State.PAUSED, what="it is full")
        produce(broker, topics.input, [(b"k", b'{"text":"' + b"x" * 100_000 + b'"}')] * 60)
        admin.delete_records({only: 150})
        gate.set()
        wait_until(
            lambda: any(
                record.headers[-1][1].endswith(b"/159") for record in read(broker, topics.output, 1)
            ),
            what="the last is labelled",
        )
    skipped, labelled = worker.value("streamlabel_offsets_skipped_total"), worker.published
    assert worker.error is None
    assert skipped > 0
    assert skipped + labelled == 160
    assert audit(broker, topics)["holds"]


@pytest.mark.allow_errors
@pytest.mark.parametrize("again", [False, True], ids=["for good", "made anew"])
def test_an_input_topic_that_is_deleted_stops_the_worker(
    broker: Broker, make_topics: MakeTopics, admin: KafkaAdminClient, again: bool
) -> None:
    """Without the watch, the client would ask for the topic ten times a second and log nothing."""
    needs_kafka(broker, "tells no topic ids and forgets no deleted topic")
    topics = make_topics(partitions=3)
    produce(broker, topics.input, texts(50))
    with running(broker, topics) as worker:
        wait_until(lambda: count(broker, topics) == 50, what="it works")
        delete_topic(admin, topics.input)
        if again:
            admin.create_topics({topics.input: {"num_partitions": 3}})
            admin.wait_for_topics([topics.input])
        worker.join(60)
    assert isinstance(worker.error, TopicMissing)
    said = "deleted and recreated" if again else "`streamlabel topics create`"
    assert topics.input in str(worker.error)
    assert said in str(worker.error)
    if again:
        produce(broker, topics.input, texts(20))
        with running(broker, topics):
            wait_until(lambda: count(broker, topics) == 70, what="the new topic from its start")


@pytest.mark.allow_errors
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_an_output_topic_that_is_deleted_stops_the_worker(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, delivery: str
) -> None:
    """The client would keep the unsent records for ever; none of them is committed."""
    needs_kafka(broker, "forgets no deleted topic")
    produce(broker, topics.input, texts(50))
    with running(broker, topics, delivery=delivery, shutdown_timeout=5.0) as worker:
        wait_until(lambda: count(broker, topics) == 50, what="it works")
        delete_topic(admin, topics.output)
        produce(broker, topics.input, texts(50, start=50))
        worker.join(60)
    assert isinstance(worker.error, TopicMissing)
    assert topics.output in str(worker.error)
    admin.create_topics({topics.output: {"num_partitions": 3}})
    admin.wait_for_topics([topics.output])
    with running(broker, topics, delivery=delivery):
        wait_until(lambda: count(broker, topics) == 50, what="the rest is in the new topic")


# -- answers -----------------------------------------------------------------------------------


def test_a_size_limit_that_is_lowered_while_the_worker_runs_loses_nothing(
    broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    """`max.message.bytes` of the output topic was read at start and is lowered afterwards.

    FIELD complaint 6: committed though it failed. A refused result becomes a dead letter first.
    """
    needs_kafka(broker, "takes any record")
    produce(broker, topics.input, texts(50))
    with running(broker, topics, **SMALL) as worker:
        wait_until(lambda: count(broker, topics) == 50, what="it works")
        alter(admin, topics.output, max_message_bytes="200")
        produce(broker, topics.input, texts(50, start=50))
        wait_until(lambda: count(broker, topics) == 100, what="the rest is dead letters")
    assert worker.error is None
    assert worker.value(
        "streamlabel_records_dead_lettered_total", reason="result_too_large"
    ) == len(read(broker, topics.dead, 3))
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (100, 0)
    assert verdict["dead_lettered"] == 50


@pytest.mark.allow_errors
def test_an_output_topic_that_refuses_every_result_stops_the_worker(
    broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    """Not all input becomes dead letters; once the topic is repaired, a restart goes on."""
    needs_kafka(broker, "takes any record")
    produce(broker, topics.input, texts(50))
    limit = {"max_consecutive_dead_letters": 20}
    with running(broker, topics, **limit, **SMALL) as worker:
        wait_until(lambda: count(broker, topics) == 50, what="it works")
        alter(admin, topics.output, max_message_bytes="200")
        produce(broker, topics.input, texts(500, start=50))
        worker.join(60)
    assert isinstance(worker.error, CircuitOpen)
    assert f"the topic {topics.output!r} refuses (max_consecutive_dead_letters)" in str(
        worker.error
    )
    dead = len(read(broker, topics.dead, 3))
    assert dead <= 20 + 64
    alter(admin, topics.output, max_message_bytes="1048588")
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) >= 550, what="a restart goes on")
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert verdict["consumed"] == 550
    assert verdict["duplicated"] <= 64


def test_a_quota_slows_the_worker_and_is_no_fault(
    broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    """Throttled for seconds: no stall, no outage, no loss; a full buffer pauses polling."""
    needs_kafka(broker, "has no quotas")
    slow = topics.group  # this test alone has this client id
    quota(admin, slow, 2_000)
    try:
        with running(broker, topics, kafka__client_id=slow, **SMALL) as worker:
            produce(broker, topics.input, texts(400))
            wait_until(lambda: worker.progress.state is State.PAUSED, what="it is full")
            assert worker.progress.live()[0]
            assert not worker.progress.away
            quota(admin, slow, None)
            wait_until(lambda: count(broker, topics) == 400, 90, "all are labelled")
    finally:
        quota(admin, slow, None)
    assert worker.error is None
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (400, 0)


def quota(admin: KafkaAdminClient, client: str, rate: int | None) -> None:
    """Set the bytes a second that this client may produce; `None` removes the quota."""
    entry = AlterClientQuotasRequest.EntryData
    request = AlterClientQuotasRequest(
        entries=[
            entry(
                entity=[entry.EntityData(entity_type="client-id", entity_name=client)],
                ops=[entry.OpData(key="producer_byte_rate", value=rate or 0, remove=rate is None)],
            )
        ],
        validate_only=False,
    )
    answer = admin._manager.run(admin._manager.send, request)
    assert [one.error_code for one in answer.entries] == [0]
