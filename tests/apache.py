"""One Apache Kafka broker (KRaft, combined roles) out of an unpacked distribution, for tests.

Needs Java 17 on PATH. The properties differ from a default broker's only to make tests quick: no
wait before a group's first rebalance, short session timeouts allowed, hung transactions and topics
to compact looked for every second, few internal partitions.
"""

from __future__ import annotations

import base64
import re
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from worker.clock import SystemClock
from worker.local.processes import last_lines, spawn, stop
from worker.settings import child_environment

_START_TIMEOUT_S: Final = 90.0
_FORMAT_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0
# An ApiVersions request: a port that listens is not yet a broker that serves.
_API_VERSIONS: Final = bytes.fromhex("0000000e 0012 0000 00000001 0004") + b"test"


class ApacheKafka:
    """A broker on a free port of 127.0.0.1, for as long as the context lasts.

    Args:
        home: the distribution: `bin/kafka-storage.sh`, `bin/kafka-server-start.sh`, `libs/`.
        overrides: broker properties that win over ours.
    """

    def __init__(self, home: Path, overrides: dict[str, str] | None = None) -> None:
        self._home = home.expanduser().resolve()
        self._overrides = overrides or {}
        self._clock = SystemClock()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap_servers = ""

    @property
    def version(self) -> str:
        """As the distribution's own jar says."""
        jars = [jar.name for jar in self._home.glob("libs/kafka_*.jar")]
        found = [match[1] for jar in jars if (match := re.search(r"-(\d+(\.\d+)+)\.jar$", jar))]
        return found[0] if found else "of unknown version"

    def __enter__(self) -> Self:
        if shutil.which("java") is None:
            raise RuntimeError("KAFKA_HOME is set, but there is no java on PATH")
        self._folder = Path(tempfile.mkdtemp(prefix="streamlabel-kafka-"))
        try:
            self._start(self._folder)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _start(self, folder: Path) -> None:
        port, controller = free_ports(2)
        properties = folder / "server.properties"
        lines = (_properties(folder, port, controller) | self._overrides).items()
        properties.write_text("".join(f"{name}={value}\n" for name, value in lines))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        format_ = self._script("kafka-storage.sh", "format", "-t", cluster, "-c", properties)
        if format_.wait(_FORMAT_TIMEOUT_S):
            raise RuntimeError(f"Kafka's storage can't be formatted:\n{last_lines(self._log)}")
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self.go_up()

    def go_up(self) -> None:
        """Start the broker, on its data and its port; returns when it answers."""
        self._process = self._script(
            "kafka-server-start.sh", self._log.with_name("server.properties")
        )
        port = int(self.bootstrap_servers.rpartition(":")[2])
        self._wait_until_it_answers(self._process, port)

    def go_down(self) -> None:
        """Stop the broker; its data stays."""
        if self._process:
            stop(self._process, _STOP_TIMEOUT_S)

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return self._folder / "out.log"

    def _script(self, name: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        # LOG_DIR: a full distribution's scripts would write into the distribution itself.
        environ = child_environment(
            KAFKA_HEAP_OPTS="-Xmx512m", LOG_DIR=str(self._log.with_name("logs"))
        )
        with self._log.open("ab") as output:
            return spawn([self._home / "bin" / name, *arguments], output, environ)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = self._clock.monotonic() + _START_TIMEOUT_S
        while not _answers(port):
            if process.poll() is not None:
                raise RuntimeError(f"Kafka ended with {process.poll()}:\n{last_lines(self._log)}")
            if self._clock.monotonic() > deadline:
                raise RuntimeError(f"Kafka did not answer in {_START_TIMEOUT_S:.0f} s")
            self._clock.sleep(0.1)

    def _close(self) -> None:
        self.go_down()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listened on a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(_API_VERSIONS)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def _properties(folder: Path, port: int, controller: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "log"),
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "5",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "5",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "log.cleaner.backoff.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
    }
