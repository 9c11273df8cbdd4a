"""Checks that memory stays flat: many records of mixed lengths through one worker process.

    make soak RECORDS=1000000

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
from tests.support.workers import WorkerProcess, audit, clock
from worker.limits import cores
from worker.processes import last_lines
from worker.settings import read_environment

_SETTLED: Final = 100_000  # records until memory must stay flat
_GROWTH: Final = 1.03
_AHEAD: Final = 20_000  # records that may wait for the worker
_PARTITIONS: Final = 4
_MODEL_TOKENS: Final = 64
_MOST_WORDS: Final = 60
_BROKEN_EVERY: Final = 500  # dead letters must not grow memory either
_OUTCOMES: Final = (
    "streamlabel_records_published_total",
    "streamlabel_records_dead_lettered_total",
)
_SAMPLE_S: Final = 0.5
_PROGRESS_S: Final = 10.0
_STALL_S: Final = 120.0
_AUDITED_A_SECOND: Final = 1_000  # at least, on a busy machine
_PROSE: Final = (
    "the quick brown fox jumps over a lazy dog while wonderful coffee falls on terrible trains, "
    "delayed again and again; unbelievable thanks to everyone who waited"
)


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
        figures = _soak(Path(home), options.records, more)
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
    # Other arguments are flags of `streamlabel run`, such as `--delivery exactly_once`.
    return parser.parse_known_args(arguments)


def _records(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 2 * _SETTLED:
            return number
    raise argparse.ArgumentTypeError(f"must be a number of at least {2 * _SETTLED}, not {text!r}")


def _soak(home: Path, records: int, more: list[str]) -> dict[str, float]:
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
            with Feed(broker, topics.input, records) as feed:
                measured = _measure(worker, feed)
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
    """Sends the records on its own thread, never far ahead of the worker."""

    def __init__(self, broker: Broker, topic: str, records: int) -> None:
        self.records = records
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
        with self._turn:
            self._stopped = True
            self._turn.notify()
        self._thread.join()
        self._producer.close()

    def done(self, records: int) -> None:
        """Report how many records have an outcome."""
        with self._turn:
            self._until = records + _AHEAD
            self._turn.notify()

    def _run(self) -> None:
        chance = random.Random(0)
        for number in range(self.records):
            self._await_turn(number)
            if self._stopped:
                return
            self._producer.send(self._topic, _value(chance, number), partition=number % _PARTITIONS)

    def _await_turn(self, number: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._stopped or number < self._until)


def _value(chance: random.Random, number: int) -> bytes:
    if number % _BROKEN_EVERY == 0:
        return b"no JSON"
    words = chance.choices(_PROSE.split(), k=chance.randint(1, _MOST_WORDS))
    return json.dumps({"id": number, "text": " ".join(words)}).encode()


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


def _measure(worker: WorkerProcess, feed: Feed) -> dict[str, float]:
    settled, end = (_wait(worker, feed, number) for number in (_SETTLED, feed.records))
    return {
        "records": end.done,
        "rss_after_100k_mb": round(settled.resident_mb, 1),
        "rss_end_mb": round(end.resident_mb, 1),
        "ratio": round(end.resident_mb / settled.resident_mb, 4),
        "records_per_second": round((end.done - settled.done) / (end.at - settled.at)),
    }


def _wait(worker: WorkerProcess, feed: Feed, number: int) -> Sample:
    """Return the first sample with `number` outcomes."""
    reported = moved = sample = _sample(worker)
    while sample.done < number:
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


def _report(sample: Sample, records: int) -> None:
    _print(f"{sample.done:,} of {records:,}: {sample.resident_mb:.1f} MB")


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
