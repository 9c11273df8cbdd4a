"""The test rig of a bench: a broker, topics, one worker, a sender and a reader.

Owns: the broker (embedded unless the settings name one), the worker's command line, and the
    measurement of throughput and latency. A stack holds everything that is started and is always
    unwound.
Thread: main.
Must not import: torch.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from worker.clock import Clock
from worker.demo.broker import EmbeddedBroker, needed_flags
from worker.demo.sample import PARTITIONS
from worker.demo.workers import DemoWorkers, run_command
from worker.errors import Fatal
from worker.kafka_io.samples import SampleProducer, Tail, sample_topics
from worker.processes import Interrupts
from worker.settings import KafkaSettings, Loaded

_STALL_S: Final = 180.0  # includes loading the model on a slow machine
_DRAIN_STEP_S: Final = 0.05
_LATENCY_STEP_S: Final = 0.001
# Shorter than the demo's pause on the embedded broker, because it adds to the latency.
_EMBEDDED_PAUSE_MS: Final = 2


class Rig:
    """Sets up load tests, each with its own topics, worker, sender and reader.

    Args:
        loaded: settings of the worker, and the broker if they name one.
        config: the settings as a file, for the worker's process.
        folder: for logs.
        stack: unwound at the end of the bench.
        interrupts: lets Ctrl-C end a wait.
        clock: for pauses and measurements.
    """

    def __init__(
        self,
        loaded: Loaded,
        config: Path,
        folder: Path,
        stack: ExitStack,
        interrupts: Interrupts,
        clock: Clock,
    ) -> None:
        self._config, self._folder = config, folder
        self._interrupts, self._clock = interrupts, clock
        self.kafka = loaded.settings.kafka
        self._flags: dict[str, str] = {}
        servers = self.kafka.bootstrap_servers
        local = servers.startswith(("127.0.0.1:", "localhost:"))
        self.broker = "Kafka on this machine" if local else f"Kafka at {servers}"
        if "kafka.bootstrap_servers" not in loaded.origins:
            embedded = stack.enter_context(EmbeddedBroker(clock=clock))
            interrupts.on_second(embedded.kill)
            self.kafka = KafkaSettings(bootstrap_servers=embedded.bootstrap_servers)
            self._flags = needed_flags() | {"--kafka-empty-poll-pause-ms": str(_EMBEDDED_PAUSE_MS)}
            self.broker = "embedded broker"

    @contextlib.contextmanager
    def load_test(self, backlog: Sequence[str] = ()) -> Iterator[LoadTest]:
        """Start a worker on new topics; it is ready on entering, unless it starts on a backlog."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        names = {part: f"{name}.{part}" for part in ("in", "labelled", "dead")}
        folder = self._folder / name
        folder.mkdir()
        with ExitStack() as stack:
            partitions = dict.fromkeys(names.values(), PARTITIONS)
            stack.enter_context(sample_topics(self.kafka, partitions, name, keep=False))
            producer = stack.enter_context(SampleProducer(self.kafka, names["in"], linger_ms=0))
            test = LoadTest(producer, self._interrupts, self._clock)
            test.fill(backlog)
            outcomes = [names["labelled"], names["dead"]]
            test.tail = stack.enter_context(Tail(self.kafka, outcomes, self._clock))
            workers = self.workers(name, names, folder)
            stack.callback(workers.end)
            test.start(workers, ready=not backlog)
            yield test
            workers.wait_until_ready()  # `stop` gives a worker that is not ready no time to drain
            workers.stop()

    def workers(self, group: str, names: dict[str, str], folder: Path) -> DemoWorkers:
        """Return the workers to measure; `names` are the topics `in`, `labelled` and `dead`."""
        command = self._command(group, names)
        return DemoWorkers(command, folder, self._interrupts, self._clock)

    def _command(self, group: str, names: dict[str, str]) -> list[str]:
        return run_command(
            {
                "--config": str(self._config),
                "--bootstrap-servers": self.kafka.bootstrap_servers,
                "--group-id": group,
                "--input-topic": names["in"],
                "--output-topic": names["labelled"],
                "--output-dead-letter-topic": names["dead"],
                "--log-format": "json",
                # The texts repeat, and each must cost as much as a new one.
                "--cache-max-bytes": "0",
                **self._flags,
            }
        )


class LoadTest:
    """Loads one worker with texts and measures its outcomes.

    Attributes:
        tail: reads the outcomes.
        cold_start_s: seconds from the start of the process until it was ready; 0 if not measured.
    """

    tail: Tail
    cold_start_s = 0.0

    def __init__(self, producer: SampleProducer, interrupts: Interrupts, clock: Clock) -> None:
        self._producer, self._interrupts, self._clock = producer, interrupts, clock
        self._tags = itertools.count()
        self._workers: DemoWorkers | None = None

    def fill(self, backlog: Sequence[str]) -> None:
        """Send the texts, and wait until the broker has acknowledged them."""
        for text in backlog:
            self._send(text)
        self._until(len(backlog), lambda: len(list(self._producer.acknowledged())), _DRAIN_STEP_S)

    def start(self, workers: DemoWorkers, *, ready: bool) -> None:
        """Start the worker and, if `ready`, wait until it is ready."""
        started = self._clock.monotonic()
        workers.start(1)
        self._workers = workers
        if ready:
            workers.wait_until_ready()
            self.cold_start_s = self._clock.monotonic() - started

    def drained_at(self, records: int) -> float:
        """Return records a second, from the first outcomes that are read to the last.

        Raises Fatal if no outcome arrives for minutes, or if all arrive in one read.
        """
        reads: list[tuple[float, int]] = []

        def look() -> int:
            count = len(self.tail.read())
            if count:
                reads.append((self._clock.monotonic(), count))
            return count

        self._until(records, look, _DRAIN_STEP_S)
        seconds = reads[-1][0] - reads[0][0]
        if not seconds:
            raise Fatal(
                f"all {records} records arrived in one read, too few for a rate: measure longer"
            )
        return sum(count for _, count in reads[1:]) / seconds

    def latencies(self, texts: Iterable[str], dues: Iterable[float]) -> list[float]:
        """Send each text at its due time; return the milliseconds from then until its outcome.

        Args:
            texts: at least as many as there are due times.
            dues: seconds from now, ascending.
        """
        pending = deque(zip(dues, texts, strict=False))
        started, waiting, latencies = self._clock.monotonic(), dict[int, float](), list[float]()

        def step() -> int:
            now = self._clock.monotonic()
            while pending and started + pending[0][0] <= now:
                due, text = pending.popleft()
                waiting[self._send(text)] = started + due
            tags = [int(record.key or b"-1") for record in self.tail.read()]
            now = self._clock.monotonic()
            answered = [waiting.pop(tag) for tag in tags if tag in waiting]
            latencies.extend((now - due) * 1000 for due in answered)
            return len(answered)

        self._until(len(pending), step, _LATENCY_STEP_S)
        for _ in self._producer.acknowledged():
            pass  # raises if the broker refused a record
        return latencies

    def resident_bytes(self) -> int | None:
        """Return the worker's memory by its own metrics, or None if they lack it."""
        if self._workers is None:
            return None
        (resident,) = self._workers.metric("process_resident_memory_bytes")
        return None if resident is None else int(resident)

    @property
    def urls(self) -> list[str]:
        """Base URL of each worker's metrics and live page."""
        return self._workers.urls if self._workers else []

    def _send(self, text: str) -> int:
        tag = next(self._tags)
        value = json.dumps({"id": str(tag), "text": text}).encode()
        self._producer.send(tag, str(tag).encode(), value, self._clock.wall_ms())
        return tag

    def _until(self, number: int, look: Callable[[], int], pause: float) -> None:
        """Call `look` until its counts add up to `number`."""
        total, last_change = 0, self._clock.monotonic()
        while total < number:
            count = look()
            total += count
            now = self._clock.monotonic()
            last_change = now if count else last_change
            if self._workers:
                self._workers.check()
            if now - last_change > _STALL_S:
                raise Fatal(
                    f"{number - total} of {number} records are outstanding, and none has arrived "
                    f"for {_STALL_S:.0f} s"
                )
            self._interrupts.sleep(pause)


def as_toml(loaded: Loaded, prefixes: tuple[str, ...]) -> str:
    """Return as TOML the settings that are not defaults and start with one of `prefixes`."""
    tables: dict[str, list[str]] = {"": []}
    for path in sorted(loaded.origins):
        if path.startswith(prefixes):
            section, _, key = path.rpartition(".")
            owner: Any = getattr(loaded.settings, section) if section else loaded.settings
            value = getattr(owner, key)
            tables.setdefault(section, []).append(f"{key} = {_scalar(value)}")
    return "\n".join(
        line
        for section, lines in tables.items()
        for line in ([f"[{section}]", *lines] if section else lines)
    )


def _scalar(value: Any) -> str:
    """Format a TOML value; strings, numbers and booleans are written as in JSON."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
