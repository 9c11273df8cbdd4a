"""/metrics, /livez and /readyz.

Owns one listening socket and its daemon threads, which only read. Imports the ground floor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from worker.errors import SettingsError
from worker.logs import get_logger
from worker.runtime.health import Health
from worker.settings import HttpSettings

log = get_logger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Exported(Protocol):
    """Whoever has metrics to show."""

    registry: CollectorRegistry


class HttpServer:
    """Serves from construction until `close`.

    Raises:
        SettingsError: the address can't be had; names the setting.
    """

    def __init__(self, settings: HttpSettings, metrics: Exported, health: Health) -> None:
        self._metrics_app = make_wsgi_app(metrics.registry)
        self._health = health
        try:
            self._server = _Server((settings.host, settings.port), _QuietHandler)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"http.port = {settings.port}: can't listen on {settings.host}: {error} "
                "(another worker? choose another --http-port, 0 picks a free one)"
            ) from error
        self._server.set_app(self._answer)
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        log.info("listening", url=f"http://{settings.host}:{self.port}/metrics")

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _text(start_response, "405 Method Not Allowed", "read only")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics_app(environ, start_response)
            return answer
        if path in ("/livez", "/readyz"):
            good, words = self._health.live() if path == "/livez" else self._health.ready()
            return _text(start_response, "200 OK" if good else "503 Service Unavailable", words)
        return _text(start_response, "404 Not Found", "try /metrics, /livez or /readyz")


def _text(start_response: StartResponse, status: str, words: str) -> list[bytes]:
    body = f"{words}\n".encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ],
    )
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The base class asks DNS for the host's full name here, which can take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # seconds for a reader that stops reading

    def log_message(self, *_: object) -> None:
        """A scrape a second is no news."""
