"""A server that answers as a schema registry does, or as a broken one."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.settings import RegistrySettings

CERTIFICATES = Path(__file__).parent.parent / "support" / "certificates"
AVRO = '{"type": "record", "name": "Post", "fields": [{"name": "text", "type": "string"}]}'


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer; bytes are sent as they are.

    Attributes:
        missing: bytes that are announced and not sent.
        hangs: nothing is sent until the server closes.
    """

    status: int = 200
    content: Any = field(default_factory=lambda: {"schema": AVRO})
    headers: Mapping[str, str] = field(default_factory=dict)
    missing: int = 0
    hangs: bool = False

    @property
    def body(self) -> bytes:
        return (
            self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()
        )


Answers = Callable[[Asked], Reply]


class Stub:
    """Answers each request on a thread, until the context ends.

    Attributes:
        asked: the requests so far.
        sent: bytes of bodies so far.
    """

    def __init__(
        self, answers: Answers | Reply, certificate: str = "", *, asks: bool = False
    ) -> None:
        self._answers = answers if callable(answers) else lambda _: answers
        self.asked: list[Asked] = []
        self.sent = 0
        self.closing = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.serve(self)

            do_POST = do_CONNECT = do_GET  # noqa: N815 - the base class names them

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATES / certificate)
            if asks:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(CERTIFICATES / "authority.pem")
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(length)) if length else None
        asked = Asked(handler.command, handler.path, dict(handler.headers.items()), body)
        self.asked.append(asked)
        reply = self._answers(asked)
        if reply.hangs:
            self.closing.wait()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        sends = reply.body
        handler.send_header("Content-Length", str(len(sends) + reply.missing))
        handler.end_headers()
        for start in range(0, len(sends), 65_536):
            self.sent += handler.wfile.write(sends[start : start + 65_536])
        handler.close_connection = bool(reply.missing) or self.closing.is_set()


def missing(code: int = 40403) -> Reply:
    """The answer about a missing schema (40403), subject (40401) or version (40402)."""
    return Reply(404, {"error_code": code, "message": "not found"})


def settings(url: str, **values: Any) -> RegistrySettings:
    return RegistrySettings(url=url, **{"timeout": 30.0} | values)


@contextlib.contextmanager
def client(url: str, metrics: Metrics | None = None, **values: Any) -> Iterator[RegistryClient]:
    """A client without a proxy between."""
    made = RegistryClient(settings(url, **values), metrics or Metrics())
    with contextlib.closing(made):
        yield made
