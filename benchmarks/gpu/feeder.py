"""Sends new texts to a topic as fast as possible, in a process of its own.

    python -m benchmarks.gpu.feeder SERVERS TOPIC SECONDS

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

_BURST: Final = 1_000  # texts between two checks of the time
_MAX_UNACKNOWLEDGED: Final = 20_000  # texts
_PAUSE_S: Final = 0.01


def feed(servers: str, topic: str, seconds: float) -> None:
    """Send texts for the given time."""
    clock = SystemClock()
    texts = repeated([post.text for post in fallback_posts()], _BURST)
    end, sent, acknowledged = clock.monotonic() + seconds, 0, 0
    with SampleProducer(KafkaSettings(bootstrap_servers=servers), topic) as producer:
        while clock.monotonic() < end:
            acknowledged += len(list(producer.acknowledged()))
            if sent - acknowledged > _MAX_UNACKNOWLEDGED:
                clock.sleep(_PAUSE_S)
                continue
            for text in texts:
                value = json.dumps({"id": str(sent), "text": f"{text} {sent}"}).encode()
                producer.send(sent, str(sent).encode(), value, clock.wall_ms())
                sent += 1


if __name__ == "__main__":
    feed(sys.argv[1], sys.argv[2], float(sys.argv[3]))
