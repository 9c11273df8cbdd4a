"""The test rig of a bench: a broker, topics, one worker, a sender and a reader.

Owns: the broker (embedded unless the settings name one) and the worker's command line. A stack
    holds everything that is started and is always unwound.
Thread: main.
Must not import: torch.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from worker.bench.load_test import LoadTest
from worker.bench.pinning import CoreShares, move
from worker.bench.usage import CpuMeter, Seconds, listener, own_seconds, process_seconds
from worker.clock import Clock
from worker.demo.broker import EmbeddedBroker, needed_flags
from worker.demo.sample import PARTITIONS
from worker.demo.workers import DemoWorkers, run_command
from worker.kafka_io.samples import SampleProducer, Tail, sample_topics
from worker.processes import Interrupts
from worker.settings import KafkaSettings, Loaded

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
        shares: cores of the worker, and of everything else; None lets them share all.
    """

    def __init__(
        self,
        loaded: Loaded,
        config: Path,
        folder: Path,
        stack: ExitStack,
        interrupts: Interrupts,
        clock: Clock,
        *,
        shares: CoreShares | None = None,
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
            self.broker, local = "embedded broker", True
        port = self.kafka.bootstrap_servers.partition(",")[0].rpartition(":")[2]
        self._broker_pid = listener(int(port)) if local else None
        self._worker_cores = shares.model if shares else None
        if shares and self._broker_pid:
            move(self._broker_pid, shares.clients)

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
            test = LoadTest(producer, self._interrupts, self._clock, self._worker_cores)
            test.fill(backlog)
            outcomes = [names["labelled"], names["dead"]]
            test.tail = stack.enter_context(Tail(self.kafka, outcomes, self._clock))
            workers = self.workers(name, names, folder)
            stack.callback(workers.end)
            test.start(workers, ready=not backlog)
            yield test
            workers.wait_until_ready()  # `stop` gives a worker that is not ready no time to drain
            workers.stop()

    def meter(self, test: LoadTest, records: int) -> CpuMeter:
        """Return a meter of the processes of a drain: `worker`, `broker` and `clients`."""
        pid = self._broker_pid
        processes: dict[str, Seconds] = {
            "worker": test.worker_seconds,
            "broker": lambda: process_seconds(pid) if pid else None,
            "clients": own_seconds,
        }
        return CpuMeter(records, processes)

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
