"""Sends new texts to a topic as fast as possible, in a process of its own.

    python -m benchmarks.gpu.feeder SERVERS TOPIC TEXTS

Owns: the producer.
Thread: main.
Must not import: torch, transformers.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from worker.bench.texts import repeated
from worker.clock import SystemClock
from worker.demo.fallback_posts import fallback_posts
from worker.kafka_io.samples import SampleProducer
from worker.settings import KafkaSettings

_BURST: Final = 1_000  # texts between two looks at what was acknowledged
_MAX_UNACKNOWLEDGED: Final = 20_000  # texts
_PAUSE_S: Final = 0.01


def feed(servers: str, topic: str, number: int) -> None:
    """Send so many texts, and wait until the broker has them."""
    clock = SystemClock()
    texts = repeated([post.text for post in fallback_posts()], _BURST)
    sent, acknowledged = 0, 0
    with SampleProducer(KafkaSettings(bootstrap_servers=servers), topic) as producer:
        while acknowledged < number:
            acknowledged += len(list(producer.acknowledged()))
            if sent == number or sent - acknowledged > _MAX_UNACKNOWLEDGED:
                clock.sleep(_PAUSE_S)
                continue
            for text in texts[: number - sent]:
                value = json.dumps({"id": str(sent), "text": f"{text} {sent}"}).encode()
                producer.send(sent, str(sent).encode(), value, clock.wall_ms())
                sent += 1


if __name__ == "__main__":
    feed(sys.argv[1], sys.argv[2], int(sys.argv[3]))
