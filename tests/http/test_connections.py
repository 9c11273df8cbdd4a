"""Strangers at the worker's HTTP: floods, and requests that are none. They cost little, and no error."""

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

from tests.support.sites import Well
from tests.support.workers import clock, wait_until
from worker.http import connections as module
from worker.http import server as http_module
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings

# As `run` starts it, where few files may be open.
_FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
from tests.support.sites import Well
from worker.logs import configure
from worker.metrics import Metrics
from worker.http.server import HttpServer
from worker.settings import HttpSettings
configure("info", "json")
server = HttpServer(HttpSettings(port=0), Metrics(), Well())
print(server.port, flush=True)
sys.stdin.read()
server.close()
"""


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with closing(HttpServer(HttpSettings(port=0), Metrics(), Well())) as server:
        yield server


def asked(port: int, path: str = "/livez") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def connected(port: int, number: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that ask nothing; some of them may still wait in the queue."""
    made = [stack.enter_context(socket.socket()) for _ in range(number)]
    for one in made:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
    return made


def test_a_flood_of_connections_where_files_run_out_is_few_lines_and_probes_are_answered() -> None:
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
            connected(port, 100, stack)
            clock.sleep(0.5)
        assert [asked(port) for _ in range(3)] == [200] * 3
        _, log = process.communicate(timeout=30)
    assert len(log) < 10_000, log[:2000]
    assert b"Traceback" not in log
    assert process.returncode == 0


def open_connections(server: HttpServer) -> int:
    return len(server._server.server_state.connections)


def test_the_newest_connection_wins_over_the_oldest_that_asks_nothing(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "_PATIENCE", 600.0)
    with ExitStack() as stack:
        watching = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        stack.enter_context(closing(watching))
        watching.request("GET", "/events")
        answer = watching.getresponse()
        idle: list[socket.socket] = []
        for number in range(1, 256, 5):  # the kernel's queue is short
            idle += connected(server.port, 5, stack)
            wait_until(lambda n=number: open_connections(server) == n + 5, what="they are in")
        idle += connected(server.port, 45, stack)
        wait_until(lambda: len(left_by(idle)) >= 45, what="as many had to go")
        assert open_connections(server) <= 256
        assert left_by(idle) == idle[:45]
        assert asked(server.port) == 200
        assert answer.readline() == b"retry: 2000\n"


def left_by(connections: list[socket.socket]) -> list[socket.socket]:
    """Those that the other end has closed."""
    return select.select(connections, [], [], 0)[0]


def test_who_is_being_answered_is_not_put_out(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all are, a new connection is closed."""
    monkeypatch.setattr(server._server._door, "_most", 2)
    with ExitStack() as stack:
        for _ in range(2):
            watching = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            stack.enter_context(closing(watching))
            watching.request("GET", "/events")
            watching.getresponse()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            asked(server.port)
        assert open_connections(server) == 2


class Refusing:
    """A listening socket whose queue is never empty, in a process without a file left."""

    def __init__(self) -> None:
        self._tries, self.tried = 0, asyncio.Event()
        self._ready, self._other = socket.socketpair()
        self._other.send(b"x")

    def fileno(self) -> int:
        return self._ready.fileno()

    def setblocking(self, _: bool) -> None: ...

    def listen(self, _: int) -> None: ...

    def accept(self) -> None:
        self._tries += 1
        if self._tries == 50:
            self.tried.set()
        raise OSError(errno.EMFILE, "Too many open files")

    def close(self) -> None:
        self._ready.close()
        self._other.close()


def test_connections_that_can_not_be_taken_are_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(module, "_REST", 0.001)
    monkeypatch.setattr(module.log, "warning", lambda event, **more: told.append(more))
    refusing = Refusing()

    async def flood() -> None:
        door = module.ConnectionLimiter(refusing, 256, None, set())  # type: ignore[arg-type]
        door.open()
        await refusing.tried.wait()
        door.close()

    asyncio.run(flood())
    (line,) = told
    assert "Too many open files" in str(line["reason"])


def test_more_files_may_be_open_than_the_shell_allows() -> None:
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
    "said",
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
def test_what_is_no_request_writes_no_error(
    server: HttpServer, said: bytes, pause: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a stack. `conftest` fails a test that logs an error."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        head = said.find(b"zz\r\n") if pause and b"zz\r\n" in said else len(said) // 2
        with contextlib.suppress(OSError):  # it is closed while this one still talks
            raw.sendall(said[:head])
            if pause:
                clock.sleep(0.2)
            raw.sendall(said[head:])
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while raw.recv(65_536):
                    pass
    assert asked(server.port) == 200
    wait_until(lambda: open_connections(server) <= 1, 30, "it is let go")
    assert not [record for record in caplog.records if record.exc_info]
