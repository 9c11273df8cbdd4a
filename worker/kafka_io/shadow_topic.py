"""Publishes a second model's results to a topic of their own, without a promise.

Owns: a producer, and the results that it has not answered yet.
Thread: infer; the thread that loads the second model makes it, and main closes it.
Must not import: inference, runtime.

The stream's results have a producer that waits for its broker. This one never waits: a result that
can't be enqueued at once, or is not acknowledged in time, is dropped and counted.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from worker.core.records import Encoded
from worker.errors import TopicMissing
from worker.kafka_io.admin import Admin
from worker.kafka_io.connection import connect
from worker.settings import Settings

_MOST_UNANSWERED: Final = 5_000  # results; a few MB
_DELIVERY_TIMEOUT_MS: Final = 30_000
_LINGER_MS: Final = 50  # nobody waits for these results
_CLOSE_TIMEOUT: Final = 1.0  # seconds


class ShadowTopic:
    """A producer for `shadow.topic`.

    Args:
        settings: cluster and compression.
        topic: where the results go.
        on_lost: called with the number of results that were dropped.

    Raises:
        TopicMissing: the topic does not exist.
        BrokerAway: no broker answers.
        Fatal: wrong credentials and the like.
    """

    def __init__(self, settings: Settings, topic: str, on_lost: Callable[[int], None]) -> None:
        self._topic, self._on_lost = topic, on_lost
        with Admin(settings.kafka) as admin:
            info = admin.topics([topic])[topic]
        if info is None:
            raise TopicMissing(f"shadow.topic = {topic!r} does not exist: create it")
        self._partitions = info.partitions
        compression = settings.output.compression
        self._producer: Any = connect(
            KafkaProducer,
            settings.kafka,
            acks=1,
            enable_idempotence=False,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS + int(settings.kafka.request_timeout * 1000),
            linger_ms=_LINGER_MS,
            compression_type=None if compression == "none" else compression,
            allow_auto_create_topics=False,
        )
        self._producer.partitions_for(topic)  # waits for the metadata, which `send` does not
        self._producer.config["max_block_ms"] = 0
        self._unanswered: deque[Any] = deque()

    def send(self, results: Sequence[Encoded]) -> None:
        """Enqueue results without waiting."""
        lost = self._answered()
        for result in results:
            if result.reason is not None or len(self._unanswered) >= _MOST_UNANSWERED:
                lost += 1
                continue
            try:
                self._unanswered.append(self._enqueue(result))
            except (KafkaError, ValueError):
                lost += 1
        if lost:
            self._on_lost(lost)

    def _enqueue(self, result: Encoded) -> Any:
        return self._producer.send(
            self._topic,
            result.value,
            key=result.key,
            headers=[(name, value or b"") for name, value in result.headers],
            partition=result.ref.partition % self._partitions,
            timestamp_ms=result.timestamp_ms,
        )

    def _answered(self) -> int:
        """Forget the results that were answered; return how many of them failed."""
        failed = 0
        while self._unanswered and self._unanswered[0].is_done:
            failed += bool(self._unanswered.popleft().failed())
        return failed

    def close(self) -> None:
        """Wait a moment for acknowledgements, and drop the rest."""
        with contextlib.suppress(KafkaError):
            self._producer.close(timeout=_CLOSE_TIMEOUT)
        if lost := self._answered() + len(self._unanswered):
            self._on_lost(lost)
