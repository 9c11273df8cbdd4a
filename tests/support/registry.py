"""Apicurio Registry, whose API is that of Confluent's registry, out of REGISTRY_HOME.

Needs Java 17 on PATH. It keeps its schemas and its port when it is killed and started again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
import pytest

from worker.clock import SystemClock
from worker.processes import last_lines, spawn, stop
from worker.settings import child_environment, read_environment

_START_TIMEOUT_S: Final = 100.0
_STOP_TIMEOUT_S: Final = 60.0
# The quick compiler alone: the other one does not pay off in the minutes that a registry lives.
_JAVA: Final = "-XX:TieredStopAtLevel=1"


class ApicurioRegistry:
    """A registry on a free port of 127.0.0.1, for as long as the context lasts.

    Attributes:
        url: as `registry.url` takes it.
        ca: PEM file of the authority that signed its certificate; exists with `tls`.
    """

    def __init__(self, home: Path, *, tls: bool = False) -> None:
        self._command = [sys.executable, home.expanduser().resolve() / "start"]
        self._options = ["--tls"] if tls else []
        self._clock = SystemClock()
        self._folder = Path()
        self._starter: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="streamlabel-registry-"))
        address = self._folder / "address"
        options = ["--data", self._folder, "--address-file", address, *self._options]
        try:
            with self._log.open("ab") as output:
                environ = child_environment(JAVA_TOOL_OPTIONS=_JAVA)
                self._starter = spawn([*self._command, *options], output, environ)
            self._wait(address.exists)
        except BaseException:
            self._close()
            raise
        self.url = address.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def ca(self) -> Path:
        """Return the path of the authority's certificate."""
        return self._folder / "ca.pem"

    def register(
        self,
        subject: str,
        text: str,
        type: str = "AVRO",  # noqa: A002 - the API's own name
        references: Sequence[tuple[str, str, int]] = (),
    ) -> int:
        """Register a schema and return its id; a reference is (name, subject, version)."""
        named = [dict(zip(("name", "subject", "version"), one, strict=True)) for one in references]
        body = {"schema": text, "schemaType": type, "references": named}
        return int(self.ask("POST", f"/subjects/{quote(subject, safe='')}/versions", body)["id"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer's JSON; raise httpx2.HTTPStatusError for a refusal."""
        verify = ssl.create_default_context(cafile=self.ca) if self._options else False
        with httpx2.Client(base_url=self.url, verify=verify, trust_env=False, timeout=30) as client:
            answer = client.request(method, path, json=body)
            answer.raise_for_status()
            return answer.json()

    def kill(self) -> None:
        """SIGKILL; return when connections are refused. Its schemas stay."""
        os.kill(self._pid, signal.SIGKILL)
        self._wait(lambda: not self._listens())

    def start(self) -> None:
        """Start it again if it was killed; return when it answers."""
        self._wait(self._revived)

    def freeze(self) -> None:
        """Send SIGSTOP: connections are accepted, and no answer comes."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        return int((self._folder / "pid").read_text())

    @property
    def _log(self) -> Path:
        return self._folder / "start.log"

    def _listens(self) -> bool:
        try:
            port = httpx2.URL(self.url).port
            assert port is not None
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionError:
            return False
        return True

    def _revived(self) -> bool:
        """Ask for a start, which is ignored while it runs; return whether it answers."""
        assert self._starter is not None
        if self._listens():
            try:
                return bool(self.ask("GET", "/config"))
            except (httpx2.HTTPError, json.JSONDecodeError):
                return False
        self._starter.send_signal(signal.SIGHUP)
        return False

    def _wait(self, done: Any) -> None:
        assert self._starter is not None
        deadline = self._clock.monotonic() + _START_TIMEOUT_S
        while not done():
            if self._starter.poll() is not None:
                raise RuntimeError(f"the registry ended unexpectedly:\n{last_lines(self._log)}")
            if self._clock.monotonic() > deadline:
                raise RuntimeError(f"the registry did not answer in {_START_TIMEOUT_S:.0f} s")
            self._clock.sleep(0.1)

    def _close(self) -> None:
        if self._starter and self._starter.poll() is None:
            if (self._folder / "pid").exists():
                self.thaw()
            stop(self._starter, _STOP_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)


def own_registry(*, tls: bool = False) -> ApicurioRegistry:
    """Return a registry that starts on `with`; skip the test if there is none."""
    home = read_environment("REGISTRY_HOME")
    if not home or shutil.which("java") is None:
        pytest.skip("needs a schema registry: set REGISTRY_HOME, with Java 17 on PATH")
    return ApicurioRegistry(Path(home), tls=tls)


def new_subject() -> str:
    """Return a subject that no other test uses."""
    return f"test-{uuid.uuid4().hex[:10]}-value"
