"""Apicurio Registry, whose API is that of Confluent's registry, out of REGISTRY_HOME.

Needs Java 17 on PATH. It keeps its schemas and its port when it is killed and started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
import pytest

from worker.clock import SystemClock
from worker.demo.registry import LocalRegistry
from worker.settings import read_environment

_ANSWER_TIMEOUT_S: Final = 100.0


class ApicurioRegistry:
    """A registry on a free port of 127.0.0.1, for as long as the context lasts.

    Attributes:
        url: as `registry.url` takes it.
        ca: PEM file of the authority that signed its certificate; exists with `tls`.
    """

    def __init__(self, home: Path, *, tls: bool = False) -> None:
        self._clock, self._tls = SystemClock(), tls
        self._local = LocalRegistry(home, self._clock, ["--tls"] if tls else [])
        self.url = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._local)
            self._wait(lambda: self._local.url is not None)
            stack.pop_all()
        self.url = self._local.url or ""
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self._local.__exit__()

    @property
    def ca(self) -> Path:
        """Return the path of the authority's certificate."""
        return self._local.data / "ca.pem"

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
        verify = ssl.create_default_context(cafile=self.ca) if self._tls else False
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
        self._wait(self.revive)

    def revive(self) -> bool:
        """Ask for a start, which is ignored while it runs; return whether it answers."""
        assert self._local.process is not None
        if self._listens():
            try:
                return bool(self.ask("GET", "/config"))
            except (httpx2.HTTPError, json.JSONDecodeError):
                return False
        self._local.process.send_signal(signal.SIGHUP)
        return False

    def freeze(self) -> None:
        """Send SIGSTOP: connections are accepted, and no answer comes."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT, unless it was killed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        return int((self._local.data / "pid").read_text())

    def _listens(self) -> bool:
        try:
            port = httpx2.URL(self.url).port
            assert port is not None
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionError:
            return False
        return True

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = self._clock.monotonic() + _ANSWER_TIMEOUT_S
        while not done():
            assert self._local.url != "", "it raises an error if the registry has ended"
            assert self._clock.monotonic() < deadline, "the registry does not answer"
            self._clock.sleep(0.1)


def own_registry(*, tls: bool = False) -> ApicurioRegistry:
    """Return a registry that starts on `with`; skip the test if there is none."""
    return ApicurioRegistry(registry_home(), tls=tls)


def registry_home() -> Path:
    """Return the folder of an unpacked registry; skip the test if there is none."""
    home = read_environment("REGISTRY_HOME")
    if not home or shutil.which("java") is None:
        pytest.skip("needs a schema registry: set REGISTRY_HOME, with Java 17 on PATH")
    return Path(home)


def new_subject() -> str:
    """Return a subject that no other test uses."""
    return f"test-{uuid.uuid4().hex[:10]}-value"
