"""`python -m tests.chaos.cost`: compares exactly-once with at-least-once, in one run.

The model is a real one. Throughput: both modes drain a backlog in turn. Latency: a third of that
rate, at several commit intervals, as a `read_committed` reader sees it. Prints a table (standard
error) and one JSON object (standard output).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.chaos.arena import Arena
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.conduct import Subject, flags_of
from tests.chaos.fleet import Fleet
from tests.chaos.plan import Delivery
from tests.chaos.scale import PARTITIONS, ResultReader, percentiles
from worker.clock import SystemClock
from worker.errors import StreamlabelError
from worker.settings import read_environment

_INTERVALS = (0.1, 0.5, 1.0)  # seconds
_STEADY_S = 20.0
_AS_SHIPPED = {"batch.max_records": 128, "max_inflight_records": 2048, "model.threads": None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure throughput, then latency."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cost", description=__doc__)
    parser.add_argument("--records", type=int, default=3000, help="of each backlog")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    home = read_environment("KAFKA_HOME")
    try:
        with cluster("apache", Path(home) if home else None, brokers=1) as brokers:
            results = _throughput(brokers, args.records, args.rounds)
            rate = results["at_least_once"] / 3
            results["latency_rate"] = round(rate, 1)
            results["latency_ms"] = _latencies(brokers, rate)
    except StreamlabelError as error:
        print(f"delivery-cost: {error}", file=sys.stderr)
        return 2
    print(json.dumps(results))
    return 0


def _throughput(brokers: Cluster, records: int, rounds: int) -> dict[str, Any]:
    rates: dict[Delivery, list[float]] = {"at_least_once": [], "exactly_once": []}
    for _ in range(rounds):
        for delivery, measured in rates.items():
            with _MeasuredWorker(brokers, delivery, rate=1e9, limit=records) as run:
                measured.append(run.drain_rate())
            _log(f"{delivery}: {measured[-1]:.1f} records/s")
    medians = {
        delivery: round(statistics.median(measured), 1) for delivery, measured in rates.items()
    }
    ratio = round(medians["exactly_once"] / medians["at_least_once"], 3)
    return {**medians, "exactly_once_to_at_least_once": ratio, "rounds": rates}


def _latencies(brokers: Cluster, rate: float) -> dict[str, Any]:
    latencies = {}
    cases: list[tuple[Delivery, float]] = [("at_least_once", 0.5)]
    cases += [("exactly_once", interval) for interval in _INTERVALS]
    for delivery, interval in cases:
        with _MeasuredWorker(
            brokers, delivery, rate=rate, limit=1e9, commit_interval=interval
        ) as run:
            name = delivery if delivery == "at_least_once" else f"{delivery}, {interval:g} s"
            latencies[name] = run.steady()
        _log(f"{name}: {latencies[name]}")
    return latencies


class _MeasuredWorker:
    """A worker with the bundled model on topics of its own, and a reader of its results."""

    def __init__(
        self, brokers: Cluster, delivery: Delivery, rate: float, limit: float, **more: Any
    ) -> None:
        self._arena = Arena(brokers, PARTITIONS, rate, limit)
        self._limit, self._clock = limit, SystemClock()
        subject = Subject("bundled", delivery)
        flags = {**_AS_SHIPPED, **more}
        self._fleet = Fleet(
            1,
            lambda slot: {
                k: v
                for k, v in (flags_of(brokers, self._arena.names, subject, slot) | flags).items()
                if v is not None
            },
            Path(tempfile.mkdtemp(prefix="streamlabel-cost-")),
            None,
        )
        self._reader = ResultReader(brokers, self._arena.names.output)
        self._reading = threading.Thread(target=self._reader.run, name="reader")

    def __enter__(self) -> Self:
        self._arena.__enter__()
        self._reading.start()
        self._arena.start()
        self._fleet.start(self._fleet.slots[0])
        self._until(lambda: self._reader.seen > 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._fleet.stop_all(60)
        self._reader.stop.set()
        self._reading.join()
        self._arena.__exit__()

    def drain_rate(self) -> float:
        """Return the records a second from the first result read to the last."""
        first, started = self._reader.seen, self._clock.monotonic()
        self._until(lambda: self._reader.seen >= self._limit)
        return (self._reader.seen - first) / (self._clock.monotonic() - started)

    def steady(self) -> dict[str, float]:
        """Return percentiles of a steady phase, after the backlog of the start is gone."""
        self._wait(_STEADY_S / 2)
        self._reader.phase = "steady"
        self._wait(_STEADY_S)
        self._reader.phase = "end"
        return percentiles(self._reader.ages["steady"])

    def _until(self, condition: Any) -> None:
        while not condition():
            self._fleet.supervise()
            self._clock.sleep(0.02)

    def _wait(self, seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        self._until(lambda: self._clock.monotonic() >= deadline)


def _log(message: str) -> None:
    print(f"delivery-cost: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
