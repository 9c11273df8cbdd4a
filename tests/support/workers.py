"""Workers under test: real processes, and threads with a scripted model."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from tests.conftest import Broker, Topics
from tests.support.ports import free_port
from tests.support.records import CARD
from worker.clock import SystemClock
from worker.core.model import Classifier, Step, Synchronous, Tokeniser, no_step
from worker.core.records import ModelCard, ModelInput, Partition, Prediction
from worker.core.state import State
from worker.core.when import Span
from worker.demo.broker import NEEDS
from worker.http.client import Snapshot, snapshots
from worker.kafka_io.admin import Admin
from worker.metrics import Metrics
from worker.runtime.context import WorkerContext
from worker.runtime.labelling import Labeller
from worker.runtime.launch import Launcher
from worker.runtime.progress import Progress
from worker.runtime.tracing import Tracing
from worker.settings import KafkaSettings, Settings, child_environment, load, options

clock = SystemClock()
Record = tuple[bytes | None, bytes | None]


def wait_until(condition: Callable[[], bool], timeout: float = 60.0, what: str = "it") -> None:
    """Poll a condition; a timeout names it."""
    deadline = clock.monotonic() + timeout
    while not condition():
        assert clock.monotonic() < deadline, f"waited {timeout:g} s in vain until {what}"
        clock.sleep(0.05)


def delete_topic(admin: KafkaAdminClient, topic: str) -> None:
    """Delete a topic; the broker answers before it has forgotten the topic, which this awaits."""
    admin.delete_topics([topic])
    wait_until(lambda: topic not in admin.list_topics(), what=f"{topic} is deleted")


def flags(broker: Broker, topics: Topics) -> dict[str, Any]:
    """Settings that point a worker at the test's topics."""
    return {
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": topics.group,
        "input.topic": topics.input,
        "output.topic": topics.output,
        "output.dead_letter_topic": topics.dead,
    } | (NEEDS if broker.kind == "embedded" else {})


# -- topics -------------------------------------------------------------------------


def produce(
    broker: Broker,
    topic: str,
    records: Sequence[Record],
    compression_type: str | None = None,
    **more: Any,
) -> None:
    """Send (key, value) pairs; return when all are acknowledged."""
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","),
        acks="all",
        compression_type=compression_type,
    )
    sent = [producer.send(topic, key=key, value=value, **more) for key, value in records]
    for one in sent:
        one.get(timeout=30)
    producer.close()


def texts(number: int, start: int = 0, more: str = "") -> list[Record]:
    """Return JSON texts, keyed by one of seven authors; each ends in `more`."""
    return [
        (
            f"author-{n % 7}".encode(),
            json.dumps({"id": n, "text": f"post number {n}{more}"}).encode(),
        )
        for n in range(start, start + number)
    ]


def read(broker: Broker, topic: str, partitions: int) -> list[Any]:
    """Return every committed record of a topic, partition by partition."""
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers.split(","),
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    with contextlib.closing(consumer):
        owned = [TopicPartition(topic, n) for n in range(partitions)]
        consumer.assign(owned)
        consumer.seek_to_beginning(*owned)
        ends = consumer.end_offsets(owned)
        found: list[Any] = []
        while any(consumer.position(p) < ends[p] for p in owned):
            for records in consumer.poll(timeout_ms=200).values():
                found += records
    return sorted(found, key=lambda r: (r.partition, r.offset))


def committed(broker: Broker, topics: Topics) -> dict[int, int]:
    """Return the committed offset of each partition of the input."""
    with ask(broker) as admin:
        return admin.committed(topics.group, topics.input)


def lag(broker: Broker, topics: Topics) -> int:
    """Return the lag as Kafka's own tools count it.

    It is 0 once each record has its outcome. A record that the worker has consumed has none yet: a
    stop drops it if no stage has it, and a successor consumes it again.
    """
    with ask(broker) as admin:
        at, ends = admin.committed(topics.group, topics.input), admin.end_offsets(topics.input)
    return sum(end - at.get(partition, 0) for partition, end in ends.items())


def ask(broker: Broker) -> Admin:
    return Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers))


def count(broker: Broker, topics: Topics) -> int:
    """Return the number of outcomes so far."""
    return sum(
        len(read(broker, topic, topics.partitions)) for topic in (topics.output, topics.dead)
    )


def audit(broker: Broker, topics: Topics, *more: str, timeout: float = 120) -> dict[str, Any]:
    """Return the report of `streamlabel audit`."""
    command = [
        *(sys.executable, "-P", "-m", "worker", "audit", "--json"),
        *_at(broker, topics),
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.stdout, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return verdict | {"exit": done.returncode}


def check(broker: Broker, topics: Topics, *more: str) -> str:
    """Return the output of `streamlabel check`, which must succeed."""
    command = [
        *(sys.executable, "-m", "worker", "check", "--model", "bundled"),
        *_at(broker, topics),
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _at(broker: Broker, topics: Topics) -> Iterator[str]:
    yield from ("--bootstrap-servers", broker.bootstrap_servers, "--group-id", topics.group)
    yield from ("--input-topic", topics.input, "--output-topic", topics.output)
    yield from ("--output-dead-letter-topic", topics.dead)


# -- the broker's side -------------------------------------------------------------------------


def needs_kafka(broker: Broker, why: str) -> None:
    if broker.kind == "embedded":
        pytest.skip(f"the embedded broker {why}")


def alter(admin: KafkaAdminClient, topic: str, **configs: str) -> None:
    """Set options of a topic; `_` stands for the dot."""
    given = {name.replace("_", "."): value for name, value in configs.items()}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=given)])


# -- metrics -----------------------------------------------------------------------------------

_METRICS: Final = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


def is_metric(series: str) -> bool:
    """Return whether docs/metrics.md has this metric: a wait for any other one never ends."""
    name = re.sub("_(sum|count|bucket)$", "", series.partition("{")[0])
    ours = name.startswith("streamlabel_")  # the library's own are not in the list
    return not ours or re.search(rf"\b{name}\b", _METRICS) is not None


# -- a process ---------------------------------------------------------------------------------


class Partitions:
    """A handler that records its calls and revokes nothing before `drained` is set."""

    def __init__(self, drained: threading.Event | None = None) -> None:
        self.told: list[str] = []
        self.owned: set[Partition] = set()
        self._drained = drained

    def on_assigned(self, partitions: Iterable[Partition]) -> None:
        self.told.append("assigned")
        self.owned |= set(partitions)

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        self.told.append("revoking")
        if self._drained:
            self._drained.wait(20)
        self.owned -= set(partitions)

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        self.told.append("lost")
        self.owned -= set(partitions)

    def on_deleted(self, partitions: Iterable[Partition]) -> None:
        self.told.append("deleted")
        self.owned -= set(partitions)

    def on_begun(self, positions: Mapping[Partition, int], where: str) -> Mapping[Partition, int]:
        return positions

    def on_skipped(self, partition: Partition, offsets: range) -> None:
        self.told.append("skipped")


class WorkerProcess:
    """A `streamlabel run` process, as in production.

    Attributes:
        engine: flags; `auto` would spend seconds of each start on comparing engines.
    """

    engine: tuple[str, ...] = ("--model-engine", "packed")

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        model: Path | str | None,
        log: Path,
        *more: str,
        program: Sequence[str] = ("worker",),
    ) -> None:
        self.port = free_port()
        self.log = log
        given = flags(broker, topics)
        command = [
            *(sys.executable, "-m", *program, "run"),
            *(("--model", str(model)) if model else ()),
            *(f"{one.flag}={given[one.path]}" for one in options() if one.path in given),
            *("--http-port", str(self.port), "--model-threads", "1"),
            *self.engine,
            *more,
        ]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=sink, env=child_environment()
            )

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body; status 0 without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def page(self, ready: Callable[[Snapshot], object], timeout: float = 60.0) -> Snapshot:
        """Return the first snapshot of the page for which `ready` holds.

        A snapshot may be a second older than the metrics that a test has just read.
        """
        deadline = clock.monotonic() + timeout
        for snapshot in snapshots(f"http://127.0.0.1:{self.port}"):
            if ready(snapshot):
                return snapshot
            assert clock.monotonic() < deadline, f"no such snapshot in {timeout:g} s"
        raise AssertionError("the stream of snapshots has ended")

    def metric(self, name: str) -> float:
        """Return the sum of the series of a metric; 0 before the first, or without an answer."""
        assert is_metric(name), f"the worker has no metric {name}"
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    @property
    def published(self) -> float:
        """Return the number of published results."""
        return self.metric("streamlabel_records_published_total")

    def wait_ready(self) -> None:
        """Wait until /readyz is green."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.get("/readyz")[0] == 200

        wait_until(ready, 120, "the worker is ready")

    def stop(self, timeout: float = 60) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait(30)


# -- a thread ----------------------------------------------------------------------------------


@dataclass
class ObedientModel(Synchronous):
    """A tokenizer and classifier in one; `on_predict` gets the texts and may raise or wait."""

    on_predict: Callable[[list[str]], None] = lambda _: None
    on_tokenise: Callable[[list[str]], None] = lambda _: None
    card: ModelCard = CARD
    predicted: list[list[str]] = field(default_factory=list)

    def tokenise(self, some: Sequence[str], _: Step = no_step) -> list[ModelInput]:
        self.on_tokenise(list(some))
        ids = tuple(tuple(map(ord, text)) for text in some)
        return [ModelInput(ids, tuple(range(len(some))), (False,) * len(some))]

    def aside(self) -> Labeller:
        """Return a labeller of this model for questions of the page."""
        return Labeller.beside(self, self, refuse_long=False)

    def warm_up(self) -> None:
        pass

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        given = ["".join(map(chr, ids)) for ids in model_input.ids]
        self.predicted.append(given)
        self.on_predict(given)
        return [Prediction((0.25, 0.75), len(text), truncated=False) for text in given]


class WorkerThread:
    """The whole worker on a thread of the test, with a scripted model."""

    def __init__(
        self,
        settings: Settings,
        tokeniser: Tokeniser,
        classifier: Classifier,
        tracing: Tracing | None = None,
        span: Span | None = None,
    ) -> None:
        self.metrics = Metrics()
        self.progress = Progress(settings.stall_timeout, self.metrics, clock)
        self.progress.move(State.WARMING)
        self.error: BaseException | None = None
        self.stop_event = threading.Event()
        launcher = Launcher(
            settings,
            WorkerContext(self.metrics, self.progress, clock, self.stop_event),
            tracing=tracing,
            span=span,
        )

        def run() -> None:
            try:
                launcher.run(tokeniser, classifier)
            except BaseException as error:  # noqa: BLE001 - for the test to judge
                self.error = error

        self.thread = threading.Thread(target=run, name="worker-main")
        self.thread.start()

    def stop(self, timeout: float = 60) -> None:
        """Stop it as SIGTERM does; raise the error that ended the worker."""
        self.stop_event.set()
        self.join(timeout)
        if self.error:
            raise self.error

    def join(self, timeout: float = 60) -> None:
        """Wait until it ends without being stopped."""
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the worker did not end"

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a metric; 0 before the first."""
        assert is_metric(name), f"the worker has no metric {name}"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def published(self) -> float:
        """Return the number of published results."""
        return self.value("streamlabel_records_published_total")


@contextlib.contextmanager
def running(
    broker: Broker,
    topics: Topics,
    model: ObedientModel | tuple[Tokeniser, Classifier] | None = None,
    tracing: Tracing | None = None,
    **more: Any,
) -> Iterator[WorkerThread]:
    """Run a worker in a `with` block; `more` are settings by path, with `__` for the dot."""
    chosen = flags(broker, topics) | {k.replace("__", "."): v for k, v in more.items()}
    settings = load(chosen, environ={}).settings
    model = model or ObedientModel()
    pair = model if isinstance(model, tuple) else (model, model)
    worker = WorkerThread(settings, *pair, tracing)
    try:
        yield worker
    finally:
        worker.stop_event.set()
        worker.join()


# The beginning of a program in which every load creates the file that is its first argument, and
# then stays where no exception reaches it, as in a library's own code.
STUCK_LOAD: Final = """
import pathlib, sys, threading, types
def load(*_, **__):
    pathlib.Path(sys.argv[1]).touch()
    threading.Event().wait()
sys.modules["worker.inference.loading"] = types.SimpleNamespace(load=load)
"""
