"""The embedded broker: a small program from PyPI (noida-db) that speaks Kafka's protocol.

For the demo and the tests only. It is not Apache Kafka: a member that dies without leaving never
expires, and its store is one file.

Owns: one broker process, its port and its data.
Thread: the one that enters the context.
Must not import: kafka, torch, any other package of worker but the ground floor.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from worker.clock import Clock, SystemClock
from worker.errors import Fatal
from worker.processes import last_lines, spawn, stop
from worker.settings import options

# Settings that a worker needs on this broker. It answers an empty fetch at once, so an idle worker
# would spin. It checks joins every 25 ms: of two waiting members, the slower one never gets an
# answer if the faster one joins the next round before that check.
NEEDS: Final = {"kafka.empty_poll_pause_ms": 20, "kafka.rejoin_pause_ms": 100}

_READY: Final = re.compile(r"^\s*kafka\s+(127\.0\.0\.1:\d+)\s*$", re.MULTILINE)
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 30.0  # it writes its whole store at the end


def needed_flags() -> dict[str, str]:
    """Return `NEEDS` for a command line: flag -> value."""
    return {option.flag: str(NEEDS[option.path]) for option in options() if option.path in NEEDS}


class EmbeddedBroker:
    """A broker on a free port of 127.0.0.1 that runs until the context exits.

    Args:
        data_dir: kept afterwards, so that a later broker finds the data; None takes a temporary
            folder and removes it.
        clock: paces the wait for the broker's address.

    Raises Fatal on entering if the package is missing or the broker does not start.
    """

    def __init__(self, data_dir: Path | None = None, clock: Clock | None = None) -> None:
        self._data_dir = data_dir
        self._clock = clock or SystemClock()
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        binary = _binary()
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(
                prefix="streamlabel-broker-", ignore_cleanup_errors=True
            )
            self._folder = Path(stack.enter_context(folder))
            log = self._folder / "broker.log"
            data = self._data_dir or self._folder / "data"
            data.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._process = spawn(_command(binary, data), output)
            stack.callback(stop, self._process, _STOP_TIMEOUT_S)
            self.bootstrap_servers = self._wait_for_address(self._process, log)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill(self) -> None:
        """Kill the broker without waiting; its last second of data may be lost."""
        if self._process:
            self._process.kill()

    def _wait_for_address(self, process: subprocess.Popen[bytes], log: Path) -> str:
        deadline = self._clock.monotonic() + _START_TIMEOUT_S
        while self._clock.monotonic() < deadline:
            exit_code = process.poll()
            address = _READY.search(log.read_text(encoding="utf-8", errors="replace"))
            if address:
                return address[1]
            if exit_code is not None:
                raise Fatal(
                    f"the embedded broker exited with code {exit_code}; its log ends:\n"
                    f"{last_lines(log)}"
                )
            self._clock.sleep(0.02)
        raise Fatal(
            f"the embedded broker did not start within {_START_TIMEOUT_S:.0f} s; its log ends:\n"
            f"{last_lines(log)}"
        )


def _binary() -> Path:
    """Return the program itself: the package's console script would leave it as an orphan."""
    spec = importlib.util.find_spec("noida_db")
    binary = Path(spec.origin).with_name("noida-db") if spec and spec.origin else None
    if binary is None or not binary.is_file():
        raise Fatal(
            "the embedded broker is not installed: run pip install 'streamlabel[demo]', or set "
            "KAFKA_BOOTSTRAP_SERVERS to a running broker"
        )
    if not binary.stat().st_mode & 0o111:
        binary.chmod(0o755)  # some installers drop the bit
    return binary


def _command(binary: Path, data: Path) -> list[str | Path]:
    only_kafka = ["--only", "kafka", "--kafka-port", "0", "--host", "127.0.0.1"]
    return [binary, "start", *only_kafka, "--data-dir", data]
