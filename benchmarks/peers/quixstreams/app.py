"""Quix Streams: one message after the other through pipeline(), committed every few seconds."""

import argparse

from quixstreams import Application
from transformers import pipeline

parser = argparse.ArgumentParser()
for name in ("bootstrap-servers", "input", "output", "group", "model"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()

classify = pipeline("text-classification", model=args.model, device="cpu")
app = Application(
    broker_address=args.bootstrap_servers,
    consumer_group=args.group,
    auto_offset_reset="earliest",
    loglevel="WARNING",
)
texts = app.topic(args.input, value_deserializer="json")
labels = app.topic(args.output, value_serializer="json")
stream = app.dataframe(texts)
stream = stream.apply(lambda value: classify(value["text"], truncation=True)[0])
stream.to_topic(labels)
app.run()
