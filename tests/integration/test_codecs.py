"""Every compression codec of Kafka, set by producers or by topics: read, written and audited."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from tests.conftest import Broker, Topics
from tests.support.workers import Record, audit, count, produce, running, texts, wait_until

pytestmark = pytest.mark.integration

CODECS = ("gzip", "snappy", "lz4", "zstd")
UNREADABLE: Record = (b"k", b"{" * 200)


def send(broker: Broker, topic: str, codec: str | None, records: Sequence[Record]) -> None:
    """Send the values as one batch, if the client can."""
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","),
        compression_type=codec,
        linger_ms=200,
    )
    for key, value in records:
        producer.send(topic, key=key, value=value)
    producer.close()


def holds(broker: Broker, topics: Topics, consumed: int, dead: int) -> None:
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["dead_lettered"], verdict["duplicated"]) == (
        consumed,
        dead,
        0,
    )


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_set_by_the_producer_is_read_and_can_be_written(
    broker: Broker, topics: Topics, codec: str
) -> None:
    send(broker, topics.input, codec, [*texts(60), UNREADABLE])
    with running(broker, topics, output__compression=codec):
        wait_until(lambda: count(broker, topics) == 61, what="all have an outcome")
    holds(broker, topics, 61, 1)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_set_by_the_topic_is_read(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, codec: str
) -> None:
    """With `compression.type` the broker compresses all records, dead letters included."""
    if broker.kind == "embedded":
        pytest.skip("the embedded broker compresses nothing")
    for topic in (topics.input, topics.output, topics.dead):
        given = {"compression.type": codec}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=given)])
    produce(broker, topics.input, [*texts(60), UNREADABLE])
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 61, what="all have an outcome")
    holds(broker, topics, 61, 1)


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_batches_of_every_codec_in_one_partition_are_read(broker: Broker, topics: Topics) -> None:
    for number, codec in enumerate((None, *CODECS, None)):
        send(broker, topics.input, codec, [*texts(20, start=20 * number), UNREADABLE])
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 126, what="all have an outcome")
    holds(broker, topics, 126, 6)
