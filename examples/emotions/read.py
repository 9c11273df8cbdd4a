"""Prints the labels that hold: `python examples/emotions/read.py [TOPIC] [COUNT]`."""

from __future__ import annotations

import json
import os
import sys
from itertools import islice

from kafka import KafkaConsumer


def main(topic: str = "posts.emotions", count: str = "3") -> None:
    """Print the decided labels of the first `count` results, the most probable label first."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    consumer = KafkaConsumer(
        topic, bootstrap_servers=servers.split(","), auto_offset_reset="earliest"
    )
    for record in islice(consumer, int(count)):
        result = json.loads(record.value)
        scores = {entry["label"]: entry["score"] for entry in result["labels"]}
        labels = sorted(result["decided"], key=lambda label: -scores[label])
        chosen = [f"{label} {scores[label]:.2f}" for label in labels]
        print(f"post {result['message_id']}: {', '.join(chosen) or 'no label'}")
    consumer.close()


if __name__ == "__main__":
    counts = sys.argv[2:]
    if len(counts) > 1 or not all(map(str.isdecimal, counts)) or "--help" in sys.argv:
        sys.exit("usage: python examples/emotions/read.py [TOPIC] [COUNT]")
    main(*sys.argv[1:])
