"""Measures the cost of a record outside the model: poll, decode, track, encode, publish, commit.

    python -m benchmarks.path --records 100000 --delivery exactly_once

A worker with a model that does nothing labels a backlog in this process. Its threads' CPU time is
read from the kernel. Prints a table to stderr and one JSON object to stdout. The broker is Apache
Kafka if KAFKA_HOME is set, otherwise the embedded one; it uses the same cores.

In the same run the client alone consumes the backlog and produces as many results, so that the
ratio of the two does not depend on the machine. So are a record's decoding and encoding in JSON, in
Avro and in other formats (`benchmarks.formats`), which are written to formats.json in the results
of this machine.

Owns: the backlog and the figures.
Thread: main; the worker runs in threads of this process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer

from benchmarks import docs
from benchmarks.brokers import some_broker
from benchmarks.formats import measure
from benchmarks.machines import here
from tests.conftest import Broker, Topics
from tests.support.records import CARD
from tests.support.workers import clock, flags
from worker.core.coordinates import SOURCE_HEADER, format_source
from worker.core.model import Step, Synchronous, no_step
from worker.core.records import ModelCard, ModelInput, Prediction
from worker.core.state import State
from worker.kafka_io.admin import Admin
from worker.logs import configure
from worker.metrics import Metrics
from worker.runtime.context import WorkerContext
from worker.runtime.launch import Launcher
from worker.runtime.progress import Progress
from worker.settings import KafkaSettings, load

_PARTITIONS = 8
_TEXT = "the train was late again, and nobody told us why; thanks for nothing at all " * 2
_RESULT = b"x" * 600  # about the bytes of a result with two labels
_WARM_UP_SHARE = 0.1  # of the records, before the measurement starts


@dataclass
class NoOpModel(Synchronous):
    """Tokeniser and classifier that do as little as possible."""

    card: ModelCard = CARD

    def tokenise(self, texts: Sequence[str], _: Step = no_step) -> list[ModelInput]:
        """Return one pass with one token for each text."""
        size = len(texts)
        return [ModelInput(((1,),) * size, tuple(range(size)), (False,) * size)]

    def warm_up(self) -> None:
        """Do nothing."""

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """Return the same prediction for all texts."""
        return [Prediction((0.25, 0.75), 1, truncated=False)] * len(model_input.ids)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure once and print the figures."""
    if sys.platform != "linux":
        print(
            "benchmarks.path: needs Linux: reads CPU times of threads from /proc", file=sys.stderr
        )
        return 2
    parser = argparse.ArgumentParser(
        "benchmarks.path", description="measure the cost of a record outside the model"
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--delivery", default="at_least_once")
    args = parser.parse_args(arguments)
    configure("warning", "plain")
    with some_broker() as broker:
        topics = _backlog(broker, args.records)
        figures = _measure(broker, topics, args.records, args.delivery)
        figures |= _client_alone(broker, topics, args.records)
    figures["to_client"] = round(figures["cpu_us_a_record"] / figures["client_us_a_record"], 2)
    for name, cost in figures["cpu_us_by_thread"].items():
        print(f"{name:>12} {cost:8.1f} us of CPU a record", file=sys.stderr)
    formats = measure(_TEXT)
    for cost in formats.formats:
        part = f"{cost.decode_us:6.1f} decode, {cost.encode_us:6.1f} encode"
        print(f"{cost.name:>16} {cost.total_us:8.1f} us of CPU a record: {part}", file=sys.stderr)
    if ratio := formats.to_json("Avro"):
        figures["avro_to_json"] = round(ratio, 2)
    print(json.dumps({"delivery": args.delivery, "broker": broker.name} | figures))
    (here() / "formats.json").write_text(formats.model_dump_json(indent=2) + "\n")
    return docs.main([])


def _backlog(broker: Broker, records: int) -> Topics:
    name = f"path-{uuid.uuid4().hex[:8]}"
    topics = Topics(f"{name}.in", f"{name}.out", f"{name}.dead", name, _PARTITIONS)
    with Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) as admin:
        for topic in (topics.input, topics.output, topics.dead):
            admin.create(topic, _PARTITIONS)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=50)
    for n in range(records):
        value = json.dumps({"id": n, "text": f"{n} {_TEXT}"}).encode()
        producer.send(topics.input, key=b"author-%d" % (n % 97), value=value, partition=n % 8)
    producer.close()
    return topics


def _measure(broker: Broker, topics: Topics, records: int, delivery: str) -> dict[str, Any]:
    model, metrics, stop = NoOpModel(), Metrics(), threading.Event()
    settings = load(flags(broker, topics) | {"delivery": delivery}, environ={}).settings
    progress = Progress(settings.stall_timeout, metrics, clock)
    progress.move(State.WARMING)
    launcher = Launcher(settings, WorkerContext(metrics, progress, clock, stop))
    main_loop = threading.Thread(target=launcher.run, args=(model, model), name="main")
    main_loop.start()

    def published() -> float:
        return metrics.registry.get_sample_value("streamlabel_records_published_total") or 0.0

    _until(lambda: published() >= records * _WARM_UP_SHARE)
    first, started, before = published(), clock.monotonic(), _cpu()
    _until(lambda: published() >= records)
    count, seconds, after = published() - first, clock.monotonic() - started, _cpu()
    stop.set()
    main_loop.join()
    used = {name: (after[name] - before.get(name, 0.0)) * 1e6 / count for name in after}
    costs = dict(sorted(used.items(), key=lambda item: -item[1]))
    return {
        "records": int(count),
        "records_per_second": round(count / seconds),
        "cpu_us_a_record": round(sum(used.values()), 1),
        "cpu_us_by_thread": {name: round(cost, 1) for name, cost in costs.items() if cost >= 0.1},
    }


def _client_alone(broker: Broker, topics: Topics, records: int) -> dict[str, Any]:
    """Consume the backlog and produce a record like a result for each, with kafka-python alone."""
    consumer = KafkaConsumer(
        topics.input, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest"
    )
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all")
    before, consumed = time.process_time(), 0
    while consumed < records:
        for batch in consumer.poll(100, max_records=500).values():
            for record in batch:
                source = format_source(record.topic, record.partition, record.offset)
                headers = [(SOURCE_HEADER, source)]
                to = record.partition, record.timestamp
                producer.send(topics.output, _RESULT, record.key, headers, *to)
            consumed += len(batch)
    producer.flush()
    seconds = time.process_time() - before
    consumer.close(autocommit=False)
    producer.close()
    return {"client_us_a_record": round(seconds * 1e6 / consumed, 1)}


def _until(done: Any) -> None:
    while not done():
        clock.sleep(0.05)


def _cpu() -> dict[str, float]:
    """Return the CPU seconds, user and system, of each thread of this process by name."""
    tick = os.sysconf("SC_CLK_TCK")
    used: dict[str, float] = {}
    for thread in threading.enumerate():
        with contextlib.suppress(OSError):  # the thread has ended
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
            user, system = stat.rsplit(")", 1)[1].split()[11:13]
            used[thread.name] = used.get(thread.name, 0.0) + (int(user) + int(system)) / tick
    return used


if __name__ == "__main__":
    sys.exit(main())
