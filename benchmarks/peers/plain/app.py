"""The loop that most people write: kafka-python and transformers' pipeline()."""

import argparse
import json

from kafka import KafkaConsumer, KafkaProducer
from transformers import pipeline

parser = argparse.ArgumentParser()
for name in ("bootstrap-servers", "input", "output", "group", "model"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--batch", type=int, default=1)
args = parser.parse_args()

classify = pipeline("text-classification", model=args.model, device="cpu", batch_size=args.batch)
producer = KafkaProducer(bootstrap_servers=args.bootstrap_servers, acks="all", linger_ms=5)
consumer = KafkaConsumer(
    args.input,
    bootstrap_servers=args.bootstrap_servers,
    group_id=args.group,
    auto_offset_reset="earliest",
    enable_auto_commit=False,
)
while True:
    polled = consumer.poll(timeout_ms=200, max_records=args.batch)
    records = [record for part in polled.values() for record in part]
    if records:
        texts = [json.loads(record.value)["text"] for record in records]
        for record, found in zip(records, classify(texts, truncation=True), strict=True):
            producer.send(args.output, key=record.key, value=json.dumps(found).encode())
        producer.flush()
        consumer.commit()
