"""Quix Streams with `pipeline()`, one message at a time.

As the documentation recommends: at least once, with results flushed before the commit every 5 s,
which is the library's default (https://quix.io/docs/quix-streams, "Configuration" and "Processing
Guarantees"). A batch would be a window, and a window belongs to one key; each of these messages has
its own key.
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
    state_dir=Path(tempfile.gettempdir(), "state"),  # created even without state
)


def label(message: dict[str, Any]) -> Any:
    (labels,) = classify(message["text"], truncation=True)
    return labels


stream = app.dataframe(app.topic(args.input, value_deserializer="json"))
stream = stream.apply(label)
stream.to_topic(app.topic(args.output, value_serializer="json"))
app.run()
