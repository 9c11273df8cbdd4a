"""Checks that memory stays flat: many records of all shapes through one worker process.

    make soak RECORDS=1000000
    make soak HOURS=6               as long as that, with a line on standard output each hour

Starts a broker from KAFKA_HOME and the worker as in production. Prints one JSON object to standard
output, progress to standard error. Exits 0 if nothing is missing or duplicated and the worker's
resident memory at the end is at most 3 % above that after the first 100,000 records; 1 if not; 2 if
the check can't run.

Owns: the broker, its topics, a tiny checkpoint, the stream of records and the measurement.
Thread: main measures, `feed` sends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from kafka import KafkaAdminClient, KafkaProducer

from tests.conftest import Broker, Topics
from tests.support.apache import ApacheKafka
from tests.support.models import make_checkpoint
from tests.support.shapes import value
from tests.support.workers import WorkerProcess, audit, clock
from worker.limits import cores
from worker.processes import last_lines
from worker.settings import read_environment

_SETTLED: Final = 100_000  # records until memory must stay flat
_GROWTH: Final = 1.03
_AHEAD: Final = 20_000  # records that may wait for the worker
_PARTITIONS: Final = 4
_MODEL_TOKENS: Final = 64
_HOUR_S: Final = 3_600.0
_OUTCOMES: Final = (
    "streamlabel_records_published_total",
    "streamlabel_records_dead_lettered_total",
)
_SAMPLE_S: Final = 0.5
_PROGRESS_S: Final = 10.0
_STALL_S: Final = 120.0
_AUDITED_A_SECOND: Final = 1_000  # at least, on a busy machine


class Failed(Exception):
    """The run measured nothing; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the check; return the exit code."""
    options, more = _arguments(arguments)
    home = read_environment("KAFKA_HOME")
    if sys.platform != "linux":
        _print("soak: needs Linux: resident memory is read from /proc")
        return 2
    if not home:
        _print("soak: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17)")
        return 2
    # SIGTERM must run `finally` too: a worker must not outlive this program.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        figures = _soak(Path(home), Length(options.records, options.hours), more)
    except (Failed, AssertionError) as error:  # the helpers assert that the worker gets ready
        _print(f"soak: {error}")
        return 1
    except RuntimeError as error:  # no java, not a Kafka distribution
        _print(f"soak: {error}")
        return 2
    sys.stdout.write(f"{json.dumps(figures)}\n")
    flat = figures["ratio"] <= _GROWTH
    return 0 if flat and figures["missing"] == figures["duplicated"] == 0 else 1


def _arguments(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser("soak", description="Check that a worker's memory stays flat.")
    parser.add_argument(
        "records", type=_records, help="number of records to label, at least 200000"
    )
    parser.add_argument("--hours", type=_hours, help="label for so long instead of that number")
    # Other arguments are flags of `streamlabel run`, such as `--delivery exactly_once`.
    return parser.parse_known_args(arguments)


def _records(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 2 * _SETTLED:
            return number
    raise argparse.ArgumentTypeError(f"must be a number of at least {2 * _SETTLED}, not {text!r}")


def _hours(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"must be a number of hours above 0, not {text!r}")


@dataclass(frozen=True)
class Length:
    """How long a run is: a number of records, or some hours if there are any."""

    records: int
    hours: float | None = None

    @property
    def most(self) -> float:
        """The most records that are sent."""
        return math.inf if self.hours else self.records


def _soak(home: Path, length: Length, more: list[str]) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="streamlabel-soak-") as name,
        ApacheKafka(home) as kafka,
    ):
        broker, folder = Broker(kafka.bootstrap_servers, "apache", "its own"), Path(name)
        topics = _topics(broker)
        model = make_checkpoint(folder / "model", max_tokens=_MODEL_TOKENS)
        # All cores: each thread of the model needs memory of its own.
        threads = ("--model-threads", str(cores()))
        worker = WorkerProcess(broker, topics, model, folder / "worker.log", *threads, *more)
        try:
            worker.wait_ready()
            with Feed(broker, topics.input, length.most) as feed:
                measured = _measure(worker, feed, length)
                records = feed.sent
            if code := worker.stop():
                raise Failed(f"the worker ended with {code}:\n{last_lines(worker.log)}")
        finally:
            worker.kill()
        verdict = audit(broker, topics, "--to-end", timeout=_STALL_S + records / _AUDITED_A_SECOND)
    if verdict["consumed"] != records or verdict["unjudged"]:
        raise Failed(f"{records} records were sent, but the audit says: {verdict}")
    return measured | {name: verdict[name] for name in ("missing", "duplicated")}


def _topics(broker: Broker) -> Topics:
    topics = Topics("soak.in", "soak.out", "soak.dead", "soak", _PARTITIONS)
    names = [topics.input, topics.output, topics.dead]
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    admin.create_topics({name: {"num_partitions": _PARTITIONS} for name in names})
    admin.wait_for_topics(names)
    admin.close()
    return topics


class Feed:
    """Sends the records on its own thread, never far ahead of the worker.

    Attributes:
        records: the most that are sent.
        sent: those that were sent.
    """

    def __init__(self, broker: Broker, topic: str, records: float) -> None:
        self.records, self.sent = records, 0
        self._topic = topic
        self._producer = KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, linger_ms=20, batch_size=262_144
        )
        self._turn = threading.Condition()
        self._until, self._stopped = _AHEAD, False
        self._thread = threading.Thread(target=self._run, name="feed")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._producer.close()

    def end(self) -> None:
        """Send no more records."""
        with self._turn:
            self._stopped = True
            self._turn.notify()
        self._thread.join()

    def done(self, records: int) -> None:
        """Report how many records have an outcome."""
        with self._turn:
            self._until = records + _AHEAD
            self._turn.notify()

    def _run(self) -> None:
        chance = random.Random(0)
        while self.sent < self.records:
            number = self.sent
            self._await_turn(number)
            if self._stopped:
                return
            self._producer.send(self._topic, value(chance, number), partition=number % _PARTITIONS)
            self.sent += 1

    def _await_turn(self, number: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._stopped or number < self._until)


@dataclass(frozen=True)
class Sample:
    """A measurement of the worker."""

    at: float
    done: int
    resident_mb: float


def _sample(worker: WorkerProcess) -> Sample:
    if worker.process.poll() is not None:
        raise Failed(f"the worker ended:\n{last_lines(worker.log)}")
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    return Sample(clock.monotonic(), int(sum(map(worker.metric, _OUTCOMES))), resident)


def _measure(worker: WorkerProcess, feed: Feed, length: Length) -> dict[str, float]:
    settled = _wait(worker, feed, _SETTLED)
    if length.hours:
        _hours_long(worker, feed, settled, length.hours)
        feed.end()
    end = _wait(worker, feed, feed.sent if length.hours else length.records)
    return {
        "records": end.done,
        "rss_after_100k_mb": round(settled.resident_mb, 1),
        "rss_end_mb": round(end.resident_mb, 1),
        "ratio": round(end.resident_mb / settled.resident_mb, 4),
        "records_per_second": round((end.done - settled.done) / (end.at - settled.at)),
    }


def _hours_long(worker: WorkerProcess, feed: Feed, settled: Sample, hours: float) -> None:
    """Go on until the hours are over, and print a line after each."""
    began = clock.monotonic()
    while (left := began + hours * _HOUR_S - clock.monotonic()) > 0:
        until = clock.monotonic() + min(left, _HOUR_S)
        sample = _wait(worker, feed, math.inf, until)
        line = {
            "hours": round((sample.at - began) / _HOUR_S, 2),
            "records": sample.done,
            "rss_mb": round(sample.resident_mb, 1),
            "ratio": round(sample.resident_mb / settled.resident_mb, 4),
        }
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()


def _wait(worker: WorkerProcess, feed: Feed, number: float, until: float = math.inf) -> Sample:
    """Return the first sample with `number` outcomes, or the first one after a time."""
    reported = moved = sample = _sample(worker)
    while sample.done < number and sample.at < until:
        clock.sleep(_SAMPLE_S)
        sample = _sample(worker)
        feed.done(sample.done)
        if sample.done > moved.done:
            moved = sample
        elif sample.at - moved.at > _STALL_S:
            raise Failed(f"no progress for {_STALL_S:.0f} s, at {sample.done:,} records")
        if sample.at - reported.at >= _PROGRESS_S:
            reported = sample
            _report(sample, feed.records)
    _report(sample, feed.records)
    return sample


def _report(sample: Sample, records: float) -> None:
    total = "" if records == math.inf else f" of {records:,}"
    _print(f"{sample.done:,}{total}: {sample.resident_mb:.1f} MB")


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
