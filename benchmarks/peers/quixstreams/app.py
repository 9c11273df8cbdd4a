"""Quix Streams: one message after the other through `pipeline()`.

As recommended: at least once, results flushed before the commit every 5 s, all of it the library's
default (https://quix.io/docs/quix-streams, "Configuration" and "Processing Guarantees"). A batch
would be a window there, and a window is one key's: these messages each have a key of their own.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from quixstreams import Application
from transformers import pipeline

parser = argparse.ArgumentParser()
for name in ("bootstrap-servers", "input", "output", "group", "model"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()

classify = pipeline("text-classification", model=args.model, device="cpu", top_k=None)
app = Application(
    broker_address=args.bootstrap_servers,
    consumer_group=args.group,
    auto_offset_reset="earliest",
    loglevel="WARNING",
    state_dir=Path(tempfile.gettempdir(), "state"),  # it makes one, though nothing here has state
)


def label(message: dict[str, Any]) -> Any:
    (labels,) = classify(message["text"], truncation=True)
    return labels


stream = app.dataframe(app.topic(args.input, value_deserializer="json"))
stream = stream.apply(label)
stream.to_topic(app.topic(args.output, value_serializer="json"))
app.run()
