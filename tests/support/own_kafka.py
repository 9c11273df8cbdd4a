"""An Apache Kafka of a test's own, to stop, freeze and damage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from tests.conftest import Broker, Topics
from tests.support.apache import ApacheKafka
from worker.settings import read_environment


def own_kafka(overrides: dict[str, str] | None = None) -> ApacheKafka:
    """Enter it to start it; skips the test where no distribution is at hand."""
    home = read_environment("KAFKA_HOME")
    if not home:
        pytest.skip("needs an Apache Kafka of its own to break: set KAFKA_HOME")
    return ApacheKafka(Path(home), overrides)


def named(kafka: ApacheKafka) -> Broker:
    """As tests know the shared one."""
    return Broker(kafka.bootstrap_servers, "apache", "its own")


@contextlib.contextmanager
def admin_of(kafka: ApacheKafka, topics: Topics, **options: Any) -> Iterator[KafkaAdminClient]:
    """An admin client, with the three topics made."""
    client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers, **options)
    names = [topics.input, topics.output, topics.dead]
    with contextlib.closing(client):
        client.create_topics({name: {"num_partitions": topics.partitions} for name in names})
        client.wait_for_topics(names)
        yield client
