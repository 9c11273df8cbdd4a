"""The embedded broker: a small program from PyPI (noida-db) that speaks Kafka's protocol.

Owns: one broker process, its port, its data. It is for the demo and the tests alone: it is not
Apache Kafka, a member that dies without leaving never expires there, and its store is one file.
Runs on: the thread that enters the context. Must not import: kafka, torch, any other room.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from worker.clock import Clock, SystemClock
from worker.errors import Fatal
from worker.processes import last_lines, spawn, stop
from worker.settings import options

# What a worker needs there: an empty fetch is answered at once, so that idle workers would spin; and
# joins are looked after every 25 ms: of two that wait, the slower one is never answered where the
# other one joins the next round before that.
NEEDS: Final = {"kafka.empty_poll_pause_ms": 20, "kafka.rejoin_pause_ms": 100}

_READY: Final = re.compile(r"^\s*kafka\s+(127\.0\.0\.1:\d+)\s*$", re.MULTILINE)
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 30.0  # it writes its whole store at the end


def needed_flags() -> dict[str, str]:
    """The same for a command line: flag -> value."""
    return {one.flag: str(NEEDS[one.path]) for one in options() if one.path in NEEDS}


class EmbeddedBroker:
    """A broker on a free port of 127.0.0.1, for as long as the context lasts.

    Args:
        data_dir: kept afterwards, so that a later broker finds the data; None takes a temporary
            folder and removes it.
        clock: waits for the broker to answer.

    Raises Fatal on entering, where the package is missing or the broker does not start.
    """

    def __init__(self, data_dir: Path | None = None, clock: Clock | None = None) -> None:
        self._given = data_dir
        self._clock = clock or SystemClock()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        binary = _binary()
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="streamlabel-broker-"))
            log = self._folder / "broker.log"
            data = self._given or self._folder / "data"
            data.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._process = spawn(_command(binary, data), output)
            self.bootstrap_servers = self._wait_for_address(self._process, log)
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

    def kill(self) -> None:
        """End it at once, for those who can't wait; its last second of data may be lost."""
        if self._process:
            self._process.kill()

    def _wait_for_address(self, process: subprocess.Popen[bytes], log: Path) -> str:
        deadline = self._clock.monotonic() + _START_TIMEOUT_S
        while self._clock.monotonic() < deadline:
            ended = process.poll()
            found = _READY.search(log.read_text(encoding="utf-8", errors="replace"))
            if found:
                return found[1]
            if ended is not None:
                raise Fatal(f"the embedded broker ended with {ended}:\n{last_lines(log)}")
            self._clock.sleep(0.02)
        raise Fatal(f"the embedded broker did not start in {_START_TIMEOUT_S:.0f} s")

    def _close(self) -> None:
        if self._process:
            stop(self._process, _STOP_TIMEOUT_S)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _binary() -> Path:
    """The program itself: the package's console script would leave it behind as an orphan."""
    spec = importlib.util.find_spec("noida_db")
    binary = Path(spec.origin).with_name("noida-db") if spec and spec.origin else None
    if binary is None or not binary.is_file():
        raise Fatal(
            "the embedded broker is not installed: pip install 'streamlabel[demo]', or set "
            "KAFKA_BOOTSTRAP_SERVERS to a broker that runs"
        )
    if not binary.stat().st_mode & 0o111:
        binary.chmod(0o755)  # some installers drop the bit
    return binary


def _command(binary: Path, data: Path) -> list[str | Path]:
    only_kafka = ["--only", "kafka", "--kafka-port", "0", "--host", "127.0.0.1"]
    return [binary, "start", *only_kafka, "--data-dir", data]
