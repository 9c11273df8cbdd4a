"""A plain loop of kafka-python and transformers' `pipeline()`.

As the documentation recommends: `pipeline()` does the batching
(https://huggingface.co/docs/transformers, "Pipelines", "Batch inference"; the page advises against
batches on a CPU, so both are measured), and offsets are committed after the results
(https://kafka-python.readthedocs.io, `KafkaConsumer`). `--pad-to 256` pads every text to one
length, as examples of inference servers do, whose models have an input of fixed size
(https://github.com/triton-inference-server, "HuggingFace Transformers").
"""

import argparse
import json

from kafka import KafkaConsumer, KafkaProducer
from transformers import pipeline

parser = argparse.ArgumentParser()
for name in ("bootstrap-servers", "input", "output", "group", "model"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--pad-to", type=int, help="tokens of every text [as many as it has]")
args = parser.parse_args()

shape = {"truncation": True}
if args.pad_to:
    shape |= {"padding": "max_length", "max_length": args.pad_to}

classify = pipeline(
    "text-classification", model=args.model, device="cpu", batch_size=args.batch, top_k=None
)
producer = KafkaProducer(bootstrap_servers=args.bootstrap_servers, acks="all")
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
        sent = [
            producer.send(args.output, key=record.key, value=json.dumps(labels).encode())
            for record, labels in zip(records, classify(texts, **shape), strict=True)
        ]
        producer.flush()
        for future in sent:
            future.get()  # raises if the broker refused the record
        consumer.commit()
