"""Produces records at a steady rate until its standard input ends: `-m tests.kube.feed`.

Runs in the cluster's network. Every partition gets every Nth record, so that the gaps between a
partition's results show a stall. It retries until a broker has acknowledged each record, and then
prints one JSON object with their number.
"""

from __future__ import annotations

import argparse
import itertools
import json
import select
import sys
import time
from collections.abc import Iterator

from kafka import KafkaProducer

from worker.demo.fallback_posts import fallback_posts

_FOR_EVER_MS = 2**31 - 1
_FLUSH_S = 120


def main() -> None:
    """Produce `--count` records, or until standard input ends, at `--rate` a second."""
    parser = argparse.ArgumentParser(prog="tests.kube.feed", description=__doc__)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="0: as fast as it can")
    parser.add_argument("--count", type=int, default=0, help="0: until standard input ends")
    args = parser.parse_args()
    producer = KafkaProducer(
        bootstrap_servers=args.bootstrap_servers.split(","),
        acks="all",
        retries=_FOR_EVER_MS,
        delivery_timeout_ms=_FOR_EVER_MS,
        max_block_ms=600_000,
        linger_ms=5,
        reconnect_backoff_max_ms=1000,
    )
    sent = 0
    for sent, value in enumerate(_values(args.count), start=1):
        producer.send(args.topic, value, partition=sent % args.partitions)
        if args.rate and _ended(1 / args.rate):
            break
    producer.flush(timeout=_FLUSH_S)
    producer.close(timeout=5)
    print(json.dumps({"sent": sent}))


def _values(count: int) -> Iterator[bytes]:
    posts = itertools.cycle(fallback_posts())
    numbers = range(1, count + 1) if count else itertools.count(1)
    for number, post in zip(numbers, posts, strict=False):
        # A text of its own, so that none is answered from the worker's cache.
        yield json.dumps({"id": f"{number}", "text": f"{post.text} ({number})"}).encode()


def _ended(pause: float) -> bool:
    """Return whether standard input ended within `pause` seconds."""
    deadline = time.monotonic() + pause
    readable, _, _ = select.select([sys.stdin], [], [], pause)
    if readable and not sys.stdin.read(1):
        return True
    time.sleep(max(0.0, deadline - time.monotonic()))
    return False


if __name__ == "__main__":
    main()
