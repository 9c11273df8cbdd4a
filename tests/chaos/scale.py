"""`python -m tests.chaos.scale`: scales 1 -> 4 -> 2 workers under load.

Starts and stops are planned ones. Prints a table of the end-to-end times that a reader of the
results sees, and of the longest time in which a partition had no result (standard error), and one
JSON object (standard output). Exits with 0 only if no record is missing, duplicated or out of order
in either delivery mode.

The stalls of the phases `1 -> 4` and `4 -> 2` are the time that a rebalance takes, as an autoscaler
must know it: worker/bench/helm_values.py has the figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from tests.chaos.arena import Arena
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.conduct import Subject, audited, flags_of
from tests.chaos.fleet import Fleet
from tests.chaos.plan import Delivery
from tests.conftest import Broker
from tests.support.models import make_checkpoint
from worker.clock import SystemClock
from worker.errors import StreamlabelError
from worker.settings import read_environment

PARTITIONS = 8
_SETTLE_S = 10.0  # seconds for a change, measured as a phase of its own
_STEADY_S = 15.0
_DELIVERIES: tuple[Delivery, ...] = ("at_least_once", "exactly_once")
_PHASES = ("1 worker", "1 -> 4", "4 workers", "4 -> 2", "2 workers")


@dataclass
class ResultReader:
    """Reads the results as they arrive, and notes the age of each record.

    Attributes:
        ages: of the records, in ms, by phase.
        stalls: longest time without a result of one partition, in ms, by phase.
    """

    cluster: Cluster | Broker
    topic: str
    partitions: int = PARTITIONS
    phase: str = "start"
    seen: int = 0
    ages: dict[str, list[float]] = field(default_factory=dict)
    stalls: dict[str, float] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Read until `stop` is set; the target of the reader's thread."""
        clock = SystemClock()
        consumer = KafkaConsumer(
            bootstrap_servers=self.cluster.bootstrap_servers.split(","),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        with contextlib.closing(consumer):
            consumer.assign([TopicPartition(self.topic, n) for n in range(self.partitions)])
            last: dict[TopicPartition, float] = {}
            while not self.stop.is_set():
                for partition, records in consumer.poll(timeout_ms=50).items():
                    now, ages = clock.wall_ms(), self.ages.setdefault(self.phase, [])
                    ages += [now - record.timestamp for record in records]
                    stall = now - last.get(partition, now)
                    self.stalls[self.phase] = max(stall, self.stalls.get(self.phase, 0.0))
                    last[partition] = now
                    self.seen += len(records)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both delivery modes in turn."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.scale", description=__doc__)
    parser.add_argument("--rate", type=float, default=150.0, help="records a second")
    args = parser.parse_args(arguments)
    home = read_environment("KAFKA_HOME")
    model = str(make_checkpoint(Path(tempfile.mkdtemp(prefix="streamlabel-tiny-")) / "tiny"))
    try:
        with cluster("apache", Path(home) if home else None, brokers=1) as brokers:
            results = {d: _measure(brokers, Subject(model, d), args.rate) for d in _DELIVERIES}
    except StreamlabelError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 2
    _show(results)
    print(json.dumps({"rate": args.rate, "settle_s": _SETTLE_S} | results))
    return 0 if all(result["holds"] for result in results.values()) else 1


def _measure(brokers: Cluster, subject: Subject, rate: float) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="streamlabel-scale-"))
    with Arena(brokers, PARTITIONS, rate) as arena:
        fleet = Fleet(4, lambda slot: flags_of(brokers, arena.names, subject, slot), folder, None)
        reader = ResultReader(brokers, arena.names.output)
        reading = threading.Thread(target=reader.run, name="reader")
        fleet.start(fleet.slots[0])
        arena.start()
        reading.start()
        try:
            _scale(fleet, arena, reader)
            drained = arena.drain(fleet.supervise, 60) and fleet.stop_all(60)
        finally:
            reader.stop.set()
            reading.join()
        verdict = audited(brokers, arena.names, subject.delivery)
    offences = {name: verdict[name] for name in ("missing", "duplicated", "reordered", "orphans")}
    phases = {name: percentiles(reader.ages.get(name, [])) for name in _PHASES}
    holds = drained and not any(offences.values())
    exits = dict(fleet.exits)
    return {"holds": holds, "consumed": verdict["consumed"], **offences, "exit_codes": exits} | {
        "end_to_end_ms": phases,
        "longest_stall_ms": {name: reader.stalls.get(name, 0.0) for name in _PHASES},
    }


def _scale(fleet: Fleet, arena: Arena, reader: ResultReader) -> None:
    clock = SystemClock()

    def phase(name: str, seconds: float) -> None:
        reader.phase = name
        print(f"scale: {name}", file=sys.stderr, flush=True)
        deadline = clock.monotonic() + seconds
        while clock.monotonic() < deadline:
            fleet.supervise()
            clock.sleep(0.05)

    while not arena.outcomes:
        clock.sleep(0.1)
    phase("start", _SETTLE_S)  # the backlog of the first start is not measured
    phase("1 worker", _STEADY_S)
    for slot in fleet.slots[1:]:
        fleet.start(slot)
    phase("1 -> 4", _SETTLE_S)
    phase("4 workers", _STEADY_S)
    for slot in fleet.slots[:2]:
        fleet.terminate(slot, None)
    phase("4 -> 2", _SETTLE_S)
    phase("2 workers", _STEADY_S)


def percentiles(ages: list[float]) -> dict[str, float]:
    """Return the number of ages; with at least two also p50, p99 and the maximum."""
    if len(ages) < 2:
        return {"records": len(ages)}
    cuts = statistics.quantiles(ages, n=100)
    return {"records": len(ages), "p50": cuts[49], "p99": cuts[98], "max": max(ages)}


def _show(results: dict[Delivery, dict[str, Any]]) -> None:
    heads = f"{'p50':>8}{'p99':>8}{'max':>8}{'stall':>8}{'records':>9}"
    print(f"{'end to end, ms':<24}{heads}", file=sys.stderr)
    for delivery, result in results.items():
        for phase, ages in result["end_to_end_ms"].items():
            row = "".join(f"{ages.get(name, 0):>8.0f}" for name in ("p50", "p99", "max"))
            label = f"{delivery[:2]}..  {phase}"
            stall = f"{result['longest_stall_ms'][phase]:>8.0f}"
            print(f"{label:<24}{row}{stall}{ages['records']:>9}", file=sys.stderr)
        print(
            f"{delivery}: duplicated {result['duplicated']}, missing {result['missing']}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
