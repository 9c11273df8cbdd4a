"""FastStream with `pipeline()`: a batch subscriber that publishes in batches.

As the documentation recommends: `batch=True` for throughput on both sides
(https://faststream.ag2.ai, "Batch Subscriber", "Publishing in Batches"), and `NACK_ON_ERROR` for at
least once ("Acknowledgement"); the default commits before the work is done.
"""

import argparse
import asyncio
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaPublishMessage
from faststream.kafka.annotations import KafkaMessage
from transformers import pipeline

BATCH = 32

parser = argparse.ArgumentParser()
for name in ("bootstrap-servers", "input", "output", "group", "model"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()

classify = pipeline(
    "text-classification", model=args.model, device="cpu", batch_size=BATCH, top_k=None
)
broker = KafkaBroker(args.bootstrap_servers, acks="all")
publisher = broker.publisher(args.output, batch=True)


@broker.subscriber(
    args.input,
    group_id=args.group,
    batch=True,
    max_records=BATCH,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def label(messages: list[dict[str, Any]], polled: KafkaMessage) -> None:
    texts = [message["text"] for message in messages]
    # In a thread, because the event loop sends the heartbeats.
    results = await asyncio.to_thread(classify, texts, truncation=True)
    pairs = zip(polled.raw_message, results, strict=True)
    await publisher.publish(
        *(KafkaPublishMessage(labels, key=record.key) for record, labels in pairs)
    )


asyncio.run(FastStream(broker).run())
