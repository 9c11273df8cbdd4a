"""Sends texts to the Kafka of a project, and tells when all of them are labelled."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any, Final

from kafka import KafkaProducer

from tests.containers.engine import Failed
from worker.clock import SystemClock
from worker.kafka_io.admin import Admin
from worker.settings import KafkaSettings

INPUT: Final = "texts.in"
GROUP: Final = "streamlabel"

_TEXTS: Final = (
    "It works, and I like it.",
    "This is the worst thing that I have ever bought.",
    "The train was late again, and it rained all day.",
    "It was a lovely evening.",
)
_PATIENCE_MS: Final = 120_000


class Feed:
    """Sends different texts; counts those that the broker has acknowledged.

    Args:
        bootstrap_servers: the broker, as this machine reaches it.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self._sent: list[Any] = []

    def send(self, number: int, rate: float = 0.0, stop: threading.Event | None = None) -> None:
        """Send records, `rate` a second (0: at once), until there are `number` or `stop` is set."""
        clock, stop = SystemClock(), stop or threading.Event()
        producer = KafkaProducer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            acks="all",
            delivery_timeout_ms=_PATIENCE_MS,
            linger_ms=5,
        )
        began = clock.monotonic()
        with contextlib.closing(producer):
            for n in range(number):
                if rate:
                    stop.wait(max(0.0, began + n / rate - clock.monotonic()))
                if stop.is_set():
                    break
                text = f"{_TEXTS[n % len(_TEXTS)]} ({len(self._sent)})"
                self._sent.append(producer.send(INPUT, json.dumps({"text": text}).encode()))
            producer.flush(_PATIENCE_MS / 1000)

    @contextlib.contextmanager
    def running(self, rate: float) -> Iterator[None]:
        """Send in the background."""
        stop = threading.Event()
        thread = threading.Thread(target=self.send, args=(10**9, rate, stop), name="feed")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @property
    def acknowledged(self) -> int:
        """The number of records that the broker has. Raises Failed if it refused one."""
        if refused := [sent for sent in self._sent if sent.is_done and sent.failed()]:
            raise Failed(f"the broker refused {len(refused)} records: {refused[0].exception}")
        return sum(sent.is_done for sent in self._sent)

    def backlog(self) -> int:
        """Return how many records of the input the group has not committed."""
        with Admin(self._kafka) as admin:
            ends = admin.end_offsets(INPUT)
            committed = admin.committed(GROUP, INPUT)
        return sum(end - committed.get(partition, 0) for partition, end in ends.items())

    def shares(self) -> list[int]:
        """Return how many partitions each member of the group has, the fewest first."""
        with Admin(self._kafka) as admin:
            return sorted(len(member.partitions) for member in admin.members(GROUP))
