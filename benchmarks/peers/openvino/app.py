"""The best loop by hand: kafka-python around OpenVINO, in bfloat16 where the processor has it.

It polls up to 500 records, sorts their texts by length, runs them in batches of 32 on as many
streams as there are threads (`streams.py`), sends the results, and commits the offsets after the
broker has acknowledged them. Without native bfloat16, OpenVINO computes in float32.
"""

import argparse
import json
import os

import openvino as ov
import torch
from kafka import KafkaConsumer, KafkaProducer
from streams import Streams, compiled, converted
from transformers import AutoConfig, AutoTokenizer

POLL = 500

parser = argparse.ArgumentParser()
for name in ("bootstrap-servers", "input", "output", "group", "model"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()

threads = int(os.environ["OMP_NUM_THREADS"])
native = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
model = compiled(converted(args.model), "bf16" if native else "f32", threads, threads)
streams = Streams(model)
tokenizer = AutoTokenizer.from_pretrained(args.model)
names = AutoConfig.from_pretrained(args.model).id2label


def label(texts: list[str]) -> list[bytes]:
    ids = tokenizer(texts, truncation=True)["input_ids"]
    rows = torch.softmax(torch.from_numpy(streams.logits(ids)), 1).tolist()
    return [
        json.dumps([{"label": names[n], "score": p} for n, p in enumerate(row)]).encode()
        for row in rows
    ]


producer = KafkaProducer(bootstrap_servers=args.bootstrap_servers, acks="all")
consumer = KafkaConsumer(
    args.input,
    bootstrap_servers=args.bootstrap_servers,
    group_id=args.group,
    auto_offset_reset="earliest",
    enable_auto_commit=False,
)
while True:
    polled = consumer.poll(timeout_ms=200, max_records=POLL)
    records = [record for part in polled.values() for record in part]
    if records:
        results = label([json.loads(record.value)["text"] for record in records])
        sent = [
            producer.send(args.output, key=record.key, value=value)
            for record, value in zip(records, results, strict=True)
        ]
        producer.flush()
        for future in sent:
            future.get()  # raises if the broker refused the record
        consumer.commit()
