"""Floods of connections and malformed requests cost little and log no error."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import resource
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support.sites import FixedHealth
from tests.support.workers import clock, wait_until
from worker.http import connections as connections_module
from worker.http import server as server_module
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings

# A server in a process that may open few files.
_FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
from tests.support.sites import FixedHealth
from worker.logs import configure
from worker.metrics import Metrics
from worker.http.server import HttpServer
from worker.settings import HttpSettings
configure("info", "json")
server = HttpServer(HttpSettings(port=0), Metrics(), FixedHealth())
print(server.port, flush=True)
sys.stdin.read()
server.close()
"""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with closing(HttpServer(HttpSettings(port=0), Metrics(), FixedHealth())) as server:
        yield server


def status_of(port: int, path: str = "/livez") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def connect(port: int, number: int, stack: ExitStack) -> list[socket.socket]:
    """Open connections that send nothing; some may still wait in the kernel's queue."""
    connections = [stack.enter_context(socket.socket()) for _ in range(number)]
    for connection in connections:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
    return connections


def test_a_flood_that_uses_up_all_files_logs_little_and_probes_are_answered() -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", _FEW_FILES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert process.stdout
        port = int(process.stdout.readline())
        for _ in range(5):
            connect(port, 100, stack)
            clock.sleep(0.5)
        assert [status_of(port) for _ in range(3)] == [200] * 3
        _, log = process.communicate(timeout=30)
    assert len(log) < 10_000, log[:2000]
    assert b"Traceback" not in log
    assert process.returncode == 0


def open_connections(server: HttpServer) -> int:
    return len(server._server.server_state.connections)


def test_at_the_limit_the_oldest_idle_connection_is_closed_for_a_new_one(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_REQUEST_TIMEOUT", 600.0)
    with ExitStack() as stack:
        watching = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        stack.enter_context(closing(watching))
        watching.request("GET", "/events")
        answer = watching.getresponse()
        idle: list[socket.socket] = []
        for number in range(1, 256, 5):  # the kernel's queue is short
            idle += connect(server.port, 5, stack)
            wait_until(lambda n=number: open_connections(server) == n + 5, what="they are open")
        idle += connect(server.port, 45, stack)
        wait_until(lambda: len(closed_of(idle)) >= 45, what="as many are closed")
        assert open_connections(server) <= 256
        assert closed_of(idle) == idle[:45]
        assert status_of(server.port) == 200
        assert answer.readline() == b"retry: 2000\n"


def closed_of(connections: list[socket.socket]) -> list[socket.socket]:
    """Return the connections that the server has closed."""
    return select.select(connections, [], [], 0)[0]


def test_a_connection_with_a_response_under_way_is_never_closed(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all are answering, the new connection is closed."""
    monkeypatch.setattr(server._server._limiter, "_limit", 2)
    with ExitStack() as stack:
        for _ in range(2):
            watching = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            stack.enter_context(closing(watching))
            watching.request("GET", "/events")
            watching.getresponse()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            status_of(server.port)
        assert open_connections(server) == 2


class Refusing:
    """A listening socket that always has a connection, in a process that can open no file."""

    def __init__(self) -> None:
        self._attempts, self.retried = 0, asyncio.Event()
        self._ready, self._other = socket.socketpair()
        self._other.send(b"x")

    def fileno(self) -> int:
        return self._ready.fileno()

    def setblocking(self, _: bool) -> None: ...

    def listen(self, _: int) -> None: ...

    def accept(self) -> None:
        self._attempts += 1
        if self._attempts == 50:
            self.retried.set()
        raise OSError(errno.EMFILE, "Too many open files")

    def close(self) -> None:
        self._ready.close()
        self._other.close()


def test_failed_accepts_are_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warnings: list[dict[str, object]] = []
    monkeypatch.setattr(connections_module, "_RETRY_DELAY", 0.001)
    monkeypatch.setattr(
        connections_module.log, "warning", lambda event, **more: warnings.append(more)
    )
    refusing = Refusing()

    async def flood() -> None:
        limiter = connections_module.ConnectionLimiter(refusing, 256, None, set())  # type: ignore[arg-type]
        limiter.start()
        await refusing.retried.wait()
        limiter.close()

    asyncio.run(flood())
    (line,) = warnings
    assert "Too many open files" in str(line["reason"])


def test_the_file_limit_is_raised_above_the_shells() -> None:
    script = (
        "import resource\n"
        "from worker.http.connections import raise_file_limit\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))\n"
        "raise_file_limit()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    soft, hard = map(int, done.stdout.split())
    assert hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert soft == min(hard, 65_536)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
JSON = b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED,
        b"GET /events HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED,
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\n" + JSON + CHUNKED,
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n" + JSON + CHUNKED,
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nzz\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabcdef\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /%ff%00%0a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n" * 1000,
    ],
)
@pytest.mark.parametrize("pause", [False, True], ids=["at once", "in two parts"])
def test_a_malformed_request_logs_no_error(
    server: HttpServer, request_bytes: bytes, pause: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a stack trace. `conftest` fails every test that logs an error."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        head = (
            request_bytes.find(b"zz\r\n")
            if pause and b"zz\r\n" in request_bytes
            else len(request_bytes) // 2
        )
        with contextlib.suppress(OSError):  # the server may close while the client still sends
            raw.sendall(request_bytes[:head])
            if pause:
                clock.sleep(0.2)
            raw.sendall(request_bytes[head:])
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while raw.recv(65_536):
                    pass
    assert status_of(server.port) == 200
    wait_until(lambda: open_connections(server) <= 1, 30, "it is closed")
    assert not [record for record in caplog.records if record.exc_info]
