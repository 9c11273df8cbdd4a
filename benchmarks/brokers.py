"""The broker of a benchmark: one that is given, Apache Kafka out of KAFKA_HOME, or the embedded one.

What is measured on the embedded one says less of production.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import Broker
from tests.support.apache import ApacheKafka
from worker.demo.broker import EmbeddedBroker
from worker.settings import read_environment


@contextlib.contextmanager
def some_broker(given: str | None = None) -> Iterator[Broker]:
    """For the length of a `with`.

    Args:
        given: its `host:port`, comma-separated; None runs one.
    """
    if given:
        yield Broker(given, "external", given)
    elif home := read_environment("KAFKA_HOME"):
        with ApacheKafka(Path(home)) as kafka:
            yield Broker(kafka.bootstrap_servers, "apache", f"Apache Kafka {kafka.version}")
    else:
        with EmbeddedBroker() as embedded:
            yield Broker(embedded.bootstrap_servers, "embedded", "the embedded broker")
