"""Sends new texts to a topic as fast as can be: `python -m benchmarks.gpu.feeder SERVERS TOPIC SECONDS`.

A process of its own, and one that loads neither torch nor transformers. Runs on: its main thread.
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

_BURST: Final = 1_000  # texts between two looks at the clock
_AHEAD: Final = 20_000  # texts that may wait for their acknowledgement
_PAUSE_S: Final = 0.01


def feed(servers: str, topic: str, seconds: float) -> None:
    """Send for so long."""
    clock = SystemClock()
    texts = repeated([post.text for post in fallback_posts()], _BURST)
    until, sent, arrived = clock.monotonic() + seconds, 0, 0
    with SampleProducer(KafkaSettings(bootstrap_servers=servers), topic) as producer:
        while clock.monotonic() < until:
            arrived += len(list(producer.acknowledged()))
            if sent - arrived > _AHEAD:
                clock.sleep(_PAUSE_S)
                continue
            for text in texts:
                value = json.dumps({"id": str(sent), "text": f"{text} {sent}"}).encode()
                producer.send(sent, str(sent).encode(), value, clock.wall_ms())
                sent += 1


if __name__ == "__main__":
    feed(sys.argv[1], sys.argv[2], float(sys.argv[3]))
