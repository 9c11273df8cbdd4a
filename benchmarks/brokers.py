"""The broker of a benchmark: a running one, Apache Kafka from KAFKA_HOME, or the embedded one.

Figures from the embedded broker are less representative of production.

Owns: the broker's process, if it starts one.
Thread: main.
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
def some_broker(bootstrap_servers: str | None = None) -> Iterator[Broker]:
    """Provide a broker until the context exits.

    Args:
        bootstrap_servers: `host:port` of a running broker, comma-separated; None starts one.
    """
    if bootstrap_servers:
        yield Broker(bootstrap_servers, "external", bootstrap_servers)
    elif home := read_environment("KAFKA_HOME"):
        with ApacheKafka(Path(home)) as kafka:
            yield Broker(kafka.bootstrap_servers, "apache", f"Apache Kafka {kafka.version}")
    else:
        with EmbeddedBroker() as embedded:
            yield Broker(embedded.bootstrap_servers, "embedded", "the embedded broker")
