"""Prints author and label of each message: `python examples/enrichment/read.py [TOPIC] [COUNT]`."""

from __future__ import annotations

import json
import os
import sys
from itertools import islice

from kafka import KafkaConsumer


def main(topic: str = "articles.enriched", count: str = "2") -> None:
    """Print the first `count` messages, each with its own members and the result."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    consumer = KafkaConsumer(
        topic, bootstrap_servers=servers.split(","), auto_offset_reset="earliest"
    )
    for record in islice(consumer, int(count)):
        message = json.loads(record.value)
        result = message["classification"]
        print(f"{message['author']} ({message['likes']} likes): {result['label']}")
    consumer.close()


if __name__ == "__main__":
    counts = sys.argv[2:]
    if len(counts) > 1 or not all(map(str.isdecimal, counts)) or "--help" in sys.argv:
        sys.exit("usage: python examples/enrichment/read.py [TOPIC] [COUNT]")
    main(*sys.argv[1:])
