"""An Apache Kafka for a single test, to stop, freeze and damage."""

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


def own_kafka(overrides: dict[str, str] | None = None, **more: Any) -> ApacheKafka:
    """Return a broker that starts on `with`; skip the test if there is no distribution.

    Args:
        overrides: as for `ApacheKafka`.
        more: its further arguments.
    """
    home = read_environment("KAFKA_HOME")
    if not home:
        pytest.skip("needs an Apache Kafka of its own to break: set KAFKA_HOME")
    return ApacheKafka(Path(home), overrides, **more)


def named(kafka: ApacheKafka) -> Broker:
    """Return it as the same type as the shared broker."""
    return Broker(kafka.bootstrap_servers, "apache", "its own")


@contextlib.contextmanager
def admin_of(kafka: ApacheKafka, topics: Topics, **options: Any) -> Iterator[KafkaAdminClient]:
    """Return an admin client; the three topics exist."""
    client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers, **options)
    names = [topics.input, topics.output, topics.dead]
    with contextlib.closing(client):
        client.create_topics({name: {"num_partitions": topics.partitions} for name in names})
        client.wait_for_topics(names)
        yield client
