"""A contender's process, and the messages to it.

Owns: the process, its Unix socket and its log.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from worker.clock import Clock
from worker.errors import Fatal
from worker.processes import Interrupts, last_lines, spawn, stop
from worker.settings import child_environment

ROOT: Final = Path(__file__).parents[2]
CONNECT_S: Final = 120.0  # the imports of torch and transformers on a busy machine
_POLL_S: Final = 0.2
_GRACE_S: Final = 5.0


class Child:
    """A process that answers messages until it is ended.

    Args:
        command: its program and arguments; `--socket PATH` is added.
        folder: for its socket and its log.
        interrupts: lets Ctrl-C end a wait.
        clock: bounds the wait for its connection.
    """

    def __init__(
        self, command: Sequence[str | Path], folder: Path, interrupts: Interrupts, clock: Clock
    ) -> None:
        folder.mkdir()
        self._log, self._interrupts, self._clock = folder / "log", interrupts, clock
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "socket"))
        self._listener.listen()
        self._listener.settimeout(_POLL_S)
        environ = child_environment(
            PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1", TMPDIR=str(folder)
        )
        with self._log.open("wb") as output:
            whole = [*command, "--socket", folder / "socket"]
            self._process: subprocess.Popen[bytes] = spawn(whole, output, environ)
        interrupts.on_second(self._process.kill)
        self._connection: socket.socket | None = None
        self._received = b""

    def ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the answer to a message.

        Raises Fatal if the process has ended, reports an error or does not answer in time; the
        message ends with the error, or with the last lines of the log.
        """
        connection = self._connection = self._connection or self._connect()
        connection.settimeout(timeout_s)
        try:
            connection.sendall(json.dumps(message).encode() + b"\n")
            line = self._line(connection)
        except TimeoutError:
            raise Fatal(f"did not answer {message['do']} within {timeout_s:g} s") from None
        except OSError:
            line = b""
        if not line:
            raise Fatal(self._ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Fatal(answer["error"])
        return answer

    def end(self) -> None:
        """Close the connection and end the process."""
        for connection in (self._connection, self._listener):
            if connection:
                connection.close()
        stop(self._process, _GRACE_S)

    def _connect(self) -> socket.socket:
        deadline = self._clock.monotonic() + CONNECT_S
        while self._clock.monotonic() < deadline:
            with contextlib.suppress(TimeoutError), self._interrupts.allowed():
                return self._listener.accept()[0]
            if self._process.poll() is not None:
                raise Fatal(self._ended())
        raise Fatal(f"did not connect within {CONNECT_S:g} s")

    def _line(self, connection: socket.socket) -> bytes:
        """Return the next line, or nothing if the connection has closed."""
        while b"\n" not in self._received:
            with self._interrupts.allowed():
                received = connection.recv(1 << 16)
            if not received:
                return b""
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _ended(self) -> str:
        code = stop(self._process, _GRACE_S)
        return f"exited with code {code}; its log ends:\n{last_lines(self._log)}"
