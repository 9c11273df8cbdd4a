"""Apache Beam's RunInference with transformers' `pipeline()`, on a bounded source.

As the documentation recommends: a `ModelHandler` with a maximum batch size, up to which Beam fits
its batches to their measured time (https://beam.apache.org/documentation/ml, "RunInference",
"Use custom models"). Beam's ready-made handler for `pipeline()` does the same, and needs
TensorFlow to be imported. Beam's own Kafka source is a Java program that a Python
pipeline starts as an expansion service. This one reads the backlog that is in the topic with
kafka-python instead, hands it over as a file, and publishes from a DoFn. So its figure has neither
the cost of a streaming read nor that of Beam's checkpoints. Offsets are committed at the end.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import (
    KeyedModelHandler,
    ModelHandler,
    PredictionResult,
    RunInference,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from transformers import Pipeline, pipeline

BATCH = 32


def backlog(consumer: KafkaConsumer, file: Path) -> None:
    """Write what the topic holds now: a line with key and text for each record."""
    ends = consumer.end_offsets(consumer.assignment())
    missing = sum(ends.values()) - sum(consumer.position(part) for part in ends)
    with file.open("w") as lines:
        while missing > 0:
            for records in consumer.poll(timeout_ms=200).values():
                missing -= len(records)
                for record in records:
                    text = json.loads(record.value)["text"]
                    lines.write(json.dumps([record.key.decode(), text]) + "\n")


class Classifier(ModelHandler[str, PredictionResult, Pipeline]):
    """Labels batches of texts with `pipeline()`."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=BATCH)
        self._model = model

    def load_model(self) -> Pipeline:
        return pipeline(
            "text-classification", model=self._model, device="cpu", batch_size=BATCH, top_k=None
        )

    def run_inference(
        self,
        batch: Sequence[str],
        model: Pipeline,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        del inference_args
        results = model(list(batch), truncation=True)
        return [PredictionResult(*pair) for pair in zip(batch, results, strict=True)]


class Publish(beam.DoFn):
    """Sends results as they come; a bundle ends when the broker has acknowledged them."""

    def __init__(self, servers: str, topic: str) -> None:
        self._servers, self._topic = servers, topic

    def setup(self) -> None:
        self._producer = KafkaProducer(bootstrap_servers=self._servers, acks="all")

    def start_bundle(self) -> None:
        self._sent: list[Any] = []

    def process(self, element: tuple[str, Any]) -> Iterable[None]:
        key, result = element
        value = json.dumps(result.inference).encode()
        self._sent.append(self._producer.send(self._topic, key=key.encode(), value=value))
        return ()

    def finish_bundle(self) -> None:
        self._producer.flush()
        for future in self._sent:
            future.get()  # raises if the broker refused the record


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap-servers", "input", "output", "group", "model"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    consumer = KafkaConsumer(
        bootstrap_servers=args.bootstrap_servers,
        group_id=args.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    partitions = consumer.partitions_for_topic(args.input)
    consumer.assign([TopicPartition(args.input, number) for number in partitions])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "backlog")
        backlog(consumer, file)
        with beam.Pipeline(runner=FnApiRunner()) as graph:
            _ = (
                graph
                | beam.io.ReadFromText(str(file))
                | beam.Map(lambda line: tuple(json.loads(line)))
                | RunInference(KeyedModelHandler(Classifier(args.model)))
                | beam.ParDo(Publish(args.bootstrap_servers, args.output))
            )
    consumer.commit()
    while True:  # the benchmark ends its contenders
        consumer.poll(timeout_ms=1_000)


if __name__ == "__main__":
    main()
