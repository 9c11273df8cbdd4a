"""What a bench measures through a broker: topics of its own, one worker, a sender and a reader.

Owns: the broker (embedded, unless one was given), the worker's command line and the clock that a
latency is read from. Everything that is started is on a stack that is unwound whatever happens.
Runs on: the main thread. Must not import: torch.
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

_STALL_S: Final = 180.0  # a slow machine's worker loads its model meanwhile
_DRAIN_STEP_S: Final = 0.05
_LATENCY_STEP_S: Final = 0.001
# Less than a worker of the embedded broker pauses elsewhere: here its latency is measured.
_EMBEDDED_PAUSE_MS: Final = 2


class Rig:
    """Makes lines: each with topics, a worker, a sender and a reader of its own.

    Args:
        loaded: settings of the worker; the broker, if one was given, is among them.
        config: the settings as a file, for the worker's process.
        folder: for logs.
        stack: unwound at the end of the bench.
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
        here = servers.startswith(("127.0.0.1:", "localhost:"))
        self.broker = "Kafka on this machine" if here else f"Kafka at {servers}"
        if "kafka.bootstrap_servers" not in loaded.origins:
            embedded = stack.enter_context(EmbeddedBroker(clock=clock))
            interrupts.on_second(embedded.kill)
            self.kafka = KafkaSettings(bootstrap_servers=embedded.bootstrap_servers)
            self._flags = needed_flags() | {"--kafka-empty-poll-pause-ms": str(_EMBEDDED_PAUSE_MS)}
            self.broker = "embedded broker"

    @contextlib.contextmanager
    def line(self, backlog: Sequence[str] = ()) -> Iterator[LoadTest]:
        """A worker on topics of its own: one that is ready, or one that starts on a backlog."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        names = {part: f"{name}.{part}" for part in ("in", "labelled", "dead")}
        folder = self._folder / name
        folder.mkdir()
        with ExitStack() as stack:
            partitions = dict.fromkeys(names.values(), PARTITIONS)
            stack.enter_context(sample_topics(self.kafka, partitions, name, keep=False))
            producer = stack.enter_context(SampleProducer(self.kafka, names["in"], linger_ms=0))
            line = LoadTest(producer, self._interrupts, self._clock)
            line.fill(backlog)
            outcomes = [names["labelled"], names["dead"]]
            line.tail = stack.enter_context(Tail(self.kafka, outcomes, self._clock))
            workers = self.workers(name, names, folder)
            stack.callback(workers.end)
            line.start(workers, ready=not backlog)
            yield line
            workers.wait_until_ready()  # one that is not would be given no time to stop
            workers.stop()

    def workers(self, group: str, names: dict[str, str], folder: Path) -> DemoWorkers:
        """What is to be measured; `names` are the topics `in`, `labelled` and `dead`."""
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
                # Texts come again and again here: each must cost what a new one does.
                "--cache-max-bytes": "0",
                **self._flags,
            }
        )


class LoadTest:
    """One worker between a sender and a reader.

    Attributes:
        cold_start_s: from the start of its process until it was ready, if that was waited for.
    """

    tail: Tail
    cold_start_s = 0.0

    def __init__(self, producer: SampleProducer, interrupts: Interrupts, clock: Clock) -> None:
        self._producer, self._interrupts, self._clock = producer, interrupts, clock
        self._tags = itertools.count()
        self._workers: DemoWorkers | None = None

    def fill(self, backlog: Sequence[str]) -> None:
        """Send all, and wait until the broker has them."""
        for text in backlog:
            self._send(text)
        self._until(len(backlog), lambda: len(list(self._producer.acknowledged())), _DRAIN_STEP_S)

    def start(self, workers: DemoWorkers, *, ready: bool) -> None:
        """Start the worker, and wait until it is ready if asked to."""
        begun = self._clock.monotonic()
        workers.start(1)
        self._workers = workers
        if ready:
            workers.wait_until_ready()
            self.cold_start_s = self._clock.monotonic() - begun

    def drained_at(self, records: int) -> float:
        """Records a second, from the first outcomes that were read to the last.

        Raises Fatal where nothing moves for minutes, or where it was over at once.
        """
        seen: list[tuple[float, int]] = []

        def look() -> int:
            found = len(self.tail.read())
            if found:
                seen.append((self._clock.monotonic(), found))
            return found

        self._until(records, look, _DRAIN_STEP_S)
        seconds = seen[-1][0] - seen[0][0]
        if not seconds:
            raise Fatal(f"{records} records were drained at once: measure longer, with --seconds")
        return sum(found for _, found in seen[1:]) / seconds

    def latencies(self, texts: Iterable[str], dues: Iterable[float]) -> list[float]:
        """Milliseconds from when each text was due until its outcome was read.

        Args:
            texts: at least as many as there are dues.
            dues: seconds from now, ascending.
        """
        pending = deque(zip(dues, texts, strict=False))
        begun, waiting, found = self._clock.monotonic(), dict[int, float](), list[float]()

        def step() -> int:
            now = self._clock.monotonic()
            while pending and begun + pending[0][0] <= now:
                due, text = pending.popleft()
                waiting[self._send(text)] = begun + due
            arrived = [int(record.key or b"-1") for record in self.tail.read()]
            now = self._clock.monotonic()
            known = [waiting.pop(tag) for tag in arrived if tag in waiting]
            found.extend((now - due) * 1000 for due in known)
            return len(known)

        self._until(len(pending), step, _LATENCY_STEP_S)
        for _ in self._producer.acknowledged():
            pass  # raises where the broker refused one
        return found

    def resident_bytes(self) -> int | None:
        """Of the worker's process, as its own metrics tell; None where the system does not."""
        if self._workers is None:
            return None
        (told,) = self._workers.metric("process_resident_memory_bytes")
        return None if told is None else int(told)

    @property
    def urls(self) -> list[str]:
        """Where its workers show metrics and page."""
        return self._workers.urls if self._workers else []

    def _send(self, text: str) -> int:
        tag = next(self._tags)
        value = json.dumps({"id": str(tag), "text": text}).encode()
        self._producer.send(tag, str(tag).encode(), value, self._clock.wall_ms())
        return tag

    def _until(self, number: int, look: Callable[[], int], pause: float) -> None:
        """Look again and again until that many were seen."""
        seen, moved = 0, self._clock.monotonic()
        while seen < number:
            found = look()
            seen += found
            now = self._clock.monotonic()
            moved = now if found else moved
            if self._workers:
                self._workers.check()
            if now - moved > _STALL_S:
                raise Fatal(f"{number - seen} of {number} records: nothing for {_STALL_S:.0f} s")
            self._interrupts.sleep(pause)


def as_toml(loaded: Loaded, prefixes: tuple[str, ...]) -> str:
    """The settings that were given and start with one of `prefixes`, for another process."""
    tables: dict[str, list[str]] = {"": []}
    for path in sorted(loaded.origins):
        if path.startswith(prefixes):
            section, _, key = path.rpartition(".")
            home: Any = getattr(loaded.settings, section) if section else loaded.settings
            value = getattr(home, key)
            tables.setdefault(section, []).append(f"{key} = {_scalar(value)}")
    return "\n".join(
        line
        for section, lines in tables.items()
        for line in ([f"[{section}]", *lines] if section else lines)
    )


def _scalar(value: Any) -> str:
    """As TOML writes it, which for strings, numbers and truth is as JSON does."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
