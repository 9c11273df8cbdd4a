"""Sends each line of a file to a topic: `python examples/send.py TOPIC FILE`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kafka import KafkaProducer


def main(topic: str, file: str) -> None:
    """Send the lines and wait until the broker has stored them."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    producer = KafkaProducer(bootstrap_servers=servers.split(","), acks="all")
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    for line in lines:
        producer.send(topic, value=line.encode())
    producer.flush()
    producer.close()
    print(f"sent {len(lines)} records to {topic}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/send.py TOPIC FILE")
    main(*sys.argv[1:])
