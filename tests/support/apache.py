"""Apache Kafka (KRaft, combined roles) out of an unpacked distribution: one broker or several.

Needs Java 17 on PATH. The properties differ from a default broker's only to make tests quick: no
wait before a group's first rebalance, short session timeouts, quick checks for hung transactions,
silent brokers and topics to compact, few internal partitions.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.support.ports import free_ports
from worker.clock import SystemClock
from worker.processes import last_lines, spawn, stop
from worker.settings import child_environment

_START_TIMEOUT_S: Final = 120.0
_FORMAT_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0
# The quick compiler alone: the other one does not pay off in the minutes that a broker lives.
_JAVA: Final = "-Xmx512m -XX:TieredStopAtLevel=1"
# An ApiVersions request: a listening port is not yet a broker that answers.
_API_VERSIONS: Final = bytes.fromhex("0000000e 0012 0000 00000001 0004") + b"test"

# A further listener: its name, and the advertised port of each broker; without a port, its own.
Doors = Mapping[str, Sequence[int]]


class ApacheKafka:
    """Brokers on free ports of 127.0.0.1, for as long as the context lasts.

    Args:
        home: the distribution: `bin/kafka-storage.sh`, `bin/kafka-server-start.sh`, `libs/`.
        overrides: broker properties that replace the defaults above.
        brokers: their number; with three, topics get three replicas of which two must be in sync.
        doors: further listeners for proxies; their clients are sent to the advertised ports, or to
            the listener itself if there are none.
        java: further options of the brokers' Java.
    """

    def __init__(
        self,
        home: Path,
        overrides: dict[str, str] | None = None,
        *,
        brokers: int = 1,
        doors: Doors | None = None,
        java: str = "",
    ) -> None:
        self._home = home.expanduser().resolve()
        self._overrides = overrides or {}
        self._count, self._doors, self._java = brokers, doors or {}, java
        self._clock = SystemClock()
        self._folder: Path | None = None
        self.nodes: list[Node] = []
        self.bootstrap_servers = ""

    @property
    def version(self) -> str:
        """Return the version of the distribution's jar."""
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

    def __exit__(self, *_: object) -> None:
        self._close()

    def _start(self, folder: Path) -> None:
        ports = free_ports(self._count * (2 + len(self._doors)))
        controllers = [ports.pop() for _ in range(self._count)]
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for index in range(self._count):
            listeners = {name: ports.pop() for name in ("PLAINTEXT", *self._doors)}
            told = {name: doors[index] for name, doors in self._doors.items() if doors}
            place = folder / str(index + 1)
            node = Node(self._home, place, listeners, self._clock, self._java)
            self.nodes.append(node)
            properties = _properties(index, controllers, node.folder, listeners, told)
            node.format(cluster, properties | self._overrides)
        self.bootstrap_servers = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.go_up()

    def go_up(self) -> None:
        """Start every broker that is down, with its data and port; return when all answer."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait()

    def go_down(self) -> None:
        """Stop every broker; the data stays."""
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.stop()

    def _close(self) -> None:
        for node in self.nodes:
            node.thaw()
        self.go_down()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


class Node:
    """One broker: a process, and a data folder that outlives it.

    Attributes:
        listeners: name -> port.
        port: of the listener without a proxy.
        stopping: whether it was asked to stop, or must stop, and was not started since.
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        listeners: Mapping[str, int],
        clock: SystemClock,
        java: str = "",
    ) -> None:
        self._home, self.folder, self.listeners, self._clock = home, folder, listeners, clock
        self._java = java
        self.port = listeners["PLAINTEXT"]
        self._process: subprocess.Popen[bytes] | None = None
        self.stopping = False
        folder.mkdir()

    def format(self, cluster: str, properties: Mapping[str, str]) -> None:
        """Write the configuration and create the data folder."""
        lines = (f"{name}={value}\n" for name, value in properties.items())
        self._properties.write_text("".join(lines))
        format_ = self._script(
            # An id may begin with a dash.
            "kafka-storage.sh",
            "format",
            f"--cluster-id={cluster}",
            "-c",
            self._properties,
        )
        if format_.wait(_FORMAT_TIMEOUT_S):
            raise RuntimeError(f"Kafka's storage can't be formatted:\n{last_lines(self.log)}")

    @property
    def up(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it if it is down; `wait` for it to answer."""
        if not self.up:
            self.stopping = False
            self._process = self._script("kafka-server-start.sh", self._properties)

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = self._clock.monotonic() + _START_TIMEOUT_S
        while not self.answers():
            if not self.up:
                raise RuntimeError(f"Kafka ended unexpectedly:\n{last_lines(self.log)}")
            if self._clock.monotonic() > deadline:
                raise RuntimeError(f"Kafka did not answer in {_START_TIMEOUT_S:.0f} s")
            self._clock.sleep(0.1)

    def answers(self) -> bool:
        """Return whether it answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(_API_VERSIONS)
                return len(connection.recv(4)) == 4
        except OSError:
            return False

    def terminate(self) -> None:
        """Ask it to stop, as an operator would; it answers until it has stopped."""
        if self._process and self.up:
            self.stopping = True
            self._process.terminate()

    def stop(self) -> None:
        """Stop it as an operator would; its data stays."""
        if self._process:
            stop(self._process, _STOP_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL; its data stays."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def fill_disk(self, size: int) -> None:
        """Let each write fail that would make a file larger than this, until the next start.

        It is a write error like that of a full disk, and may store a part of a batch. A broker with
        one folder of logs ends itself then. Needs Linux, and no rights.

        Args:
            size: bytes.
        """
        if self._process and self.up:
            self.stopping = True
            limits = (size, resource.RLIM_INFINITY)
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, limits)

    def log_size(self, topics: Collection[str]) -> int:
        """Return the bytes of the largest file of these topics' logs."""
        sizes = [0]
        for topic in topics:
            # Files and folders may be deleted meanwhile, and `Path.glob` would raise then.
            for file in glob.iglob(f"log/{topic}-*/*.log", root_dir=self.folder):  # noqa: PTH207
                with contextlib.suppress(FileNotFoundError):
                    sizes.append((self.folder / file).stat().st_size)
        return max(sizes)

    def freeze(self) -> None:
        """Send SIGSTOP: its connections stay open and no answer comes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self.up:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    @property
    def log(self) -> Path:
        """Return its log."""
        return self.folder / "out.log"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _script(self, name: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        # LOG_DIR: a full distribution's scripts would write into the distribution itself.
        environ = child_environment(
            KAFKA_HEAP_OPTS=_JAVA, KAFKA_OPTS=self._java, LOG_DIR=str(self.folder / "logs")
        )
        with self.log.open("ab") as output:
            return spawn([self._home / "bin" / name, *arguments], output, environ)


def _properties(
    index: int,
    controllers: Sequence[int],
    folder: Path,
    listeners: Mapping[str, int],
    told: Mapping[str, int],
) -> dict[str, str]:
    copies = min(3, len(controllers))
    in_sync = max(1, copies - 1)
    listening = {**listeners, "CONTROLLER": controllers[index]}
    advertised = {**listeners, **told}
    return {
        "process.roles": "broker,controller",
        "node.id": str(index + 1),
        "broker.rack": f"rack-{index + 1}",
        "controller.quorum.voters": ",".join(
            f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, start=1)
        ),
        "listeners": _addresses(listening),
        "advertised.listeners": _addresses(advertised),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listening),
        "log.dirs": str(folder / "log"),
        "num.network.threads": "1",
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.num.partitions": "5",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "5",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "log.cleaner.backoff.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


def _addresses(listeners: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
