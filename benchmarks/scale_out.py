"""`make bench-scale`: 1, 2, 4, 8 workers of one group, each text taking a fixed time in the model.

Each step drains a backlog of its own for a while, after all workers are ready: records a second,
efficiency against one worker, and how evenly workers and partitions were served. Prints a table
(standard error) and one JSON object (standard output); writes benchmarks/results/scale_out.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.brokers import some_broker
from benchmarks.fixed_service import PREFIX
from benchmarks.recorded import RESULTS, ScaleOut, ScaleStep
from worker.bench.machine import processor
from worker.clock import Clock, SystemClock
from worker.demo import workers as demo_workers
from worker.errors import Fatal, StreamlabelError
from worker.kafka_io.samples import SampleProducer, Tail, sample_topics
from worker.pool.shares import cores
from worker.processes import Interrupts
from worker.settings import KafkaSettings

PARTITIONS: Final = 24
_STARTING_S: Final = 40.0  # of backlog more than is measured: eight workers start on two cores
_SETTLE_S: Final = 5.0
_LOOK_S: Final = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """All steps, one after the other."""
    parser = argparse.ArgumentParser(prog="bench-scale", description=__doc__)
    parser.add_argument("--service-ms", type=float, default=10.0, help="of each text [10]")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each step [20]")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--bootstrap-servers", help="a Kafka; else KAFKA_HOME, else the embedded")
    args = parser.parse_args(arguments)
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    clock = SystemClock()
    try:
        with some_broker(args.bootstrap_servers) as broker, Interrupts(clock) as interrupts:
            kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
            rates = [
                _Step(kafka, workers, args.service_ms, interrupts, clock).measured(args.seconds)
                for workers in args.workers
            ]
    except StreamlabelError as error:
        print(f"bench-scale: {error}", file=sys.stderr)
        return 1
    found = _found(rates, args.service_ms)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scale_out.json").write_text(found.model_dump_json(indent=2) + "\n")
    _show(found)
    print(json.dumps(found.model_dump()))
    return 0


class _Step:
    """So many workers on topics of their own."""

    def __init__(
        self,
        kafka: KafkaSettings,
        workers: int,
        service_ms: float,
        interrupts: Interrupts,
        clock: Clock,
    ) -> None:
        self._kafka, self._number, self._service_ms = kafka, workers, service_ms
        self._interrupts, self._clock = interrupts, clock
        name = f"scale-{uuid.uuid4().hex[:8]}"
        self._topics = [f"{name}.{part}" for part in ("in", "labelled", "dead")]
        self._group = name

    def measured(self, seconds: float) -> ScaleStep:
        """Efficiency is left at 1: it takes the first step's rate."""
        print(f"bench-scale: {self._number} worker(s)", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
            partitions = dict.fromkeys(self._topics, PARTITIONS)
            stack.enter_context(sample_topics(self._kafka, partitions, self._group, keep=False))
            producer = stack.enter_context(SampleProducer(self._kafka, self._topics[0]))
            self._fill(producer, seconds)
            workers = demo_workers.DemoWorkers(
                self._command(), folder, self._interrupts, self._clock
            )
            stack.callback(workers.end)
            workers.start(self._number)
            workers.wait_until_ready()
            tail = stack.enter_context(Tail(self._kafka, self._topics[1:2], self._clock))
            self._watch(tail, workers, _SETTLE_S)
            before = _published(workers)
            begun = self._clock.monotonic()
            served = self._watch(tail, workers, seconds)
            after = _published(workers)
            done = [now - then for now, then in zip(after, before, strict=True)]
            if not sum(done):
                raise Fatal(f"no results within {seconds:g} s: measure longer, with --seconds")
            rate = sum(done) / (self._clock.monotonic() - begun)
        return ScaleStep(
            workers=self._number,
            records_per_s=rate,
            efficiency=1.0,
            fairness=_spread(done),
            partition_fairness=_spread([served[number] for number in range(PARTITIONS)]),
        )

    def _fill(self, producer: SampleProducer, seconds: float) -> None:
        each = 1000 / self._service_ms
        records = int(self._number * each * (seconds + _SETTLE_S + _STARTING_S))
        for number in range(records):
            # No two alike: the model would be asked about a text but once.
            value = json.dumps({"id": str(number), "text": f"text {number}"}).encode()
            producer.send(number, str(number).encode(), value, self._clock.wall_ms())
        arrived = 0
        while arrived < records:
            arrived += len(list(producer.acknowledged()))
            self._interrupts.sleep(_LOOK_S)

    def _watch(self, tail: Tail, workers: demo_workers.DemoWorkers, seconds: float) -> Counter[int]:
        """Results of each partition that came in that time."""
        served: Counter[int] = Counter()
        deadline = self._clock.monotonic() + seconds
        while self._clock.monotonic() < deadline:
            workers.check()
            served.update(record.ref.partition for record in tail.read())
            self._interrupts.sleep(_LOOK_S)
        return served

    def _command(self) -> list[str]:
        flags = {
            "--bootstrap-servers": self._kafka.bootstrap_servers,
            "--group-id": self._group,
            "--input-topic": self._topics[0],
            "--output-topic": self._topics[1],
            "--output-dead-letter-topic": self._topics[2],
            "--model": f"{PREFIX}{self._service_ms:g}",
            # Small batches: results come evenly enough to be counted within seconds.
            "--batch-max-records": "16",
            "--kafka-empty-poll-pause-ms": "20",
            "--log-format": "json",
        }
        words = [word for pair in flags.items() for word in pair]
        return ["-m", "benchmarks.fixed_service", "run", *words]


def _published(workers: demo_workers.DemoWorkers) -> list[float]:
    return [value or 0.0 for value in workers.metric("streamlabel_records_published_total")]


def _spread(shares: Sequence[float]) -> float:
    """The largest : the smallest; 1 is perfectly fair. Infinite would be no JSON: 0 stands for it."""
    return max(shares) / min(shares) if min(shares) else 0.0


def _found(steps: list[ScaleStep], service_ms: float) -> ScaleOut:
    cpu, features = processor()
    one = steps[0].records_per_s / steps[0].workers
    return ScaleOut(
        cpu=cpu,
        cores=cores(),
        features=features,
        service_ms=service_ms,
        partitions=PARTITIONS,
        steps=tuple(
            step.model_copy(update={"efficiency": step.records_per_s / (step.workers * one)})
            for step in steps
        ),
    )


def _show(found: ScaleOut) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("workers", "records/s", "efficiency", "busiest : idlest", "of partitions"):
        table.add_column(name, justify="right")
    for step in found.steps:
        shares = (step.efficiency, step.fairness, step.partition_fairness)
        figures = (f"{share:.2f}" for share in shares)
        table.add_row(str(step.workers), f"{step.records_per_s:.1f}", *figures)
    Console(stderr=True, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
