"""FastStream: batches of a subscriber through pipeline(), published as a batch."""

import argparse
import asyncio
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from transformers import pipeline

BATCH = 32

parser = argparse.ArgumentParser()
for name in ("bootstrap-servers", "input", "output", "group", "model"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()

classify = pipeline("text-classification", model=args.model, device="cpu", batch_size=BATCH)
broker = KafkaBroker(args.bootstrap_servers, acks="all")
publisher = broker.publisher(args.output, batch=True)


@broker.subscriber(
    args.input,
    group_id=args.group,
    batch=True,
    max_records=BATCH,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.ACK,
)
async def label(messages: list[dict[str, Any]]) -> None:
    texts = [message["text"] for message in messages]
    # In a thread: heartbeats are sent from the event loop.
    found = await asyncio.to_thread(classify, texts, truncation=True)
    await publisher.publish(*found)


asyncio.run(FastStream(broker).run())
