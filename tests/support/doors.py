"""A broker with an open door beside the guarded one of its worker: topics, and texts to label.

Owns: nothing.
Thread: the test's.
Must not import: the worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from kafka import KafkaAdminClient

from tests.conftest import Broker, Topics, new_topics
from tests.support.workers import WorkerThread, audit, produce, texts, wait_until


def topics_behind(door: Broker) -> Topics:
    """Return new topics of one partition, made through a door without sign-in."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=door.bootstrap_servers)) as admin:
        return new_topics(admin, 1)


class NumberedFeed:
    """Sends numbered texts, through the door without sign-in.

    Attributes:
        broker: that door.
        sent: number of texts.
    """

    def __init__(self, broker: Broker, topics: Topics) -> None:
        self.broker, self._topics = broker, topics
        self.sent = 0

    def send(self, number: int = 10) -> None:
        """Send some."""
        produce(self.broker, self._topics.input, texts(number, start=self.sent))
        self.sent += number

    def wait(self, worker: WorkerThread) -> None:
        """Wait for all results."""
        wait_until(lambda: worker.published >= self.sent, what="they are labelled")

    def send_until(self, worker: WorkerThread, condition: Callable[[], bool], what: str) -> None:
        """Send some, wait for their results, and repeat that."""

        def labelled_and_done() -> bool:
            self.send()
            self.wait(worker)
            return condition()

        wait_until(labelled_and_done, what=what)

    def verify(self, *more: str) -> dict[str, Any]:
        """Return the verdict of the audit; every text has its result."""
        verdict = audit(self.broker, self._topics, *more)
        assert verdict["holds"], verdict
        assert (verdict["consumed"], verdict["missing"]) == (self.sent, 0)
        return verdict
