"""Prints each result: `python examples/sentiment/read.py [TOPIC] [COUNT]`."""

from __future__ import annotations

import json
import os
import sys
from itertools import islice

from kafka import KafkaConsumer


def main(topic: str = "posts.sentiment", count: str = "4") -> None:
    """Print the first `count` results of the topic."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    consumer = KafkaConsumer(
        topic, bootstrap_servers=servers.split(","), auto_offset_reset="earliest"
    )
    for record in islice(consumer, int(count)):
        result = json.loads(record.value)
        print(f"post {result['message_id']}: {result['label']} ({result['score']:.2f})")
    consumer.close()


if __name__ == "__main__":
    counts = sys.argv[2:]
    if len(counts) > 1 or not all(map(str.isdecimal, counts)) or "--help" in sys.argv:
        sys.exit("usage: python examples/sentiment/read.py [TOPIC] [COUNT]")
    main(*sys.argv[1:])
