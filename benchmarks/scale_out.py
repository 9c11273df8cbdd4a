"""Measures 1, 2, 4 and 8 workers of one group, with a model that takes a fixed time for each text.

    python -m benchmarks.scale_out --seconds 20

Each step drains a backlog of its own once all workers are ready. It measures records a second,
efficiency relative to one worker, and how evenly workers and partitions progress. Prints a table to
stderr and one JSON object to stdout; writes scale_out.json into the results of this
machine.

Owns: scale_out.json.
Thread: main.
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
from benchmarks.machines import here, provenance
from benchmarks.recorded import ScaleOut, ScaleStep
from worker.clock import Clock, SystemClock
from worker.core.counted import counted
from worker.demo.workers import DemoWorkers
from worker.errors import Fatal, StreamlabelError
from worker.kafka_io.samples import SampleProducer, Tail, sample_topics
from worker.processes import Interrupts
from worker.settings import KafkaSettings

PARTITIONS: Final = 24
_STARTING_S: Final = 40.0  # backlog for the start of eight workers on two cores
_SETTLE_S: Final = 5.0
_POLL_S: Final = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all steps, one after the other."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scale_out", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--service-ms", type=float, default=10.0, help="ms for each text [10]")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds for each step [20]")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument(
        "--bootstrap-servers", help="a running Kafka [KAFKA_HOME, or the embedded broker]"
    )
    args = parser.parse_args(arguments)
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    clock = SystemClock()
    try:
        with some_broker(args.bootstrap_servers) as broker, Interrupts(clock) as interrupts:
            kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
            steps = [
                _ScaleRun(kafka, workers, args.service_ms, interrupts, clock).measure(args.seconds)
                for workers in args.workers
            ]
    except StreamlabelError as error:
        print(f"benchmarks.scale_out: {error}", file=sys.stderr)
        return 1
    result = _result(steps, args.service_ms)
    (here() / "scale_out.json").write_text(result.model_dump_json(indent=2) + "\n")
    _show(result)
    print(json.dumps(result.model_dump()))
    return 0


class _ScaleRun:
    """Measures a number of workers on new topics."""

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

    def measure(self, seconds: float) -> ScaleStep:
        """Return the figures, with an efficiency of 1: only the first step's rate defines it."""
        print(
            f"benchmarks.scale_out: {counted(self._number, 'worker')}", file=sys.stderr, flush=True
        )
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
            partitions = dict.fromkeys(self._topics, PARTITIONS)
            stack.enter_context(sample_topics(self._kafka, partitions, self._group, keep=False))
            producer = stack.enter_context(SampleProducer(self._kafka, self._topics[0]))
            self._fill(producer, seconds)
            workers = DemoWorkers(self._command(), folder, self._interrupts, self._clock)
            stack.callback(workers.end)
            workers.start(self._number)
            workers.wait_until_ready()
            tail = stack.enter_context(Tail(self._kafka, self._topics[1:2], self._clock))
            self._watch(tail, workers, _SETTLE_S)
            before = _published(workers)
            started = self._clock.monotonic()
            by_partition = self._watch(tail, workers, seconds)
            after = _published(workers)
            published = [end - start for end, start in zip(after, before, strict=True)]
            if not sum(published):
                raise Fatal(f"no results within {seconds:g} s: measure longer with --seconds")
            rate = sum(published) / (self._clock.monotonic() - started)
        return ScaleStep(
            workers=self._number,
            records_per_s=rate,
            efficiency=1.0,
            fairness=_spread(published),
            partition_fairness=_spread([by_partition[number] for number in range(PARTITIONS)]),
        )

    def _fill(self, producer: SampleProducer, seconds: float) -> None:
        rate = 1000 / self._service_ms
        records = int(self._number * rate * (seconds + _SETTLE_S + _STARTING_S))
        for number in range(records):
            # All texts differ: the cache would answer a repeated one.
            value = json.dumps({"id": str(number), "text": f"text {number}"}).encode()
            producer.send(number, str(number).encode(), value, self._clock.wall_ms())
        acknowledged = 0
        while acknowledged < records:
            acknowledged += len(list(producer.acknowledged()))
            self._interrupts.sleep(_POLL_S)

    def _watch(self, tail: Tail, workers: DemoWorkers, seconds: float) -> Counter[int]:
        """Return the number of results of each partition that arrive in the given time."""
        results: Counter[int] = Counter()
        deadline = self._clock.monotonic() + seconds
        while self._clock.monotonic() < deadline:
            workers.check()
            results.update(record.ref.partition for record in tail.read())
            self._interrupts.sleep(_POLL_S)
        return results

    def _command(self) -> list[str]:
        flags = {
            "--bootstrap-servers": self._kafka.bootstrap_servers,
            "--group-id": self._group,
            "--input-topic": self._topics[0],
            "--output-topic": self._topics[1],
            "--output-dead-letter-topic": self._topics[2],
            "--model": f"{PREFIX}{self._service_ms:g}",
            # Small batches give an even flow of results within seconds.
            "--batch-max-records": "16",
            "--kafka-empty-poll-pause-ms": "20",
            "--log-format": "json",
        }
        arguments = [argument for pair in flags.items() for argument in pair]
        return ["-m", "benchmarks.fixed_service", "run", *arguments]


def _published(workers: DemoWorkers) -> list[float]:
    return [value or 0.0 for value in workers.metric("streamlabel_records_published_total")]


def _spread(shares: Sequence[float]) -> float:
    """Return largest / smallest; 1 is perfectly even, and 0 replaces infinity, which JSON lacks."""
    return max(shares) / min(shares) if min(shares) else 0.0


def _result(steps: list[ScaleStep], service_ms: float) -> ScaleOut:
    single = steps[0].records_per_s / steps[0].workers
    return ScaleOut(
        **provenance(),
        service_ms=service_ms,
        partitions=PARTITIONS,
        steps=tuple(
            step.model_copy(update={"efficiency": step.records_per_s / (step.workers * single)})
            for step in steps
        ),
    )


def _show(result: ScaleOut) -> None:
    table = Table(box=None, pad_edge=False)
    names = ("workers", "records/s", "efficiency", "busiest/idlest worker", "partition")
    for name in names:
        table.add_column(name, justify="right")
    for step in result.steps:
        shares = (step.efficiency, step.fairness, step.partition_fairness)
        figures = (f"{share:.2f}" for share in shares)
        table.add_row(str(step.workers), f"{step.records_per_s:.1f}", *figures)
    Console(stderr=True, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
