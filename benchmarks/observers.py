"""Observers of a worker during a measurement: Prometheus, an open page, a trace collector.

Owns: their requests; the observers discard the responses.
Thread: each observer has its own daemon thread until its context exits.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from worker.settings import child_environment

Observer = Callable[[str], AbstractContextManager[object]]

_INTERVAL_S: Final = 1.0
_COLLECTOR_PORT: Final = 4318  # OTLP over HTTP


def scraping(url: str) -> AbstractContextManager[object]:
    """Get /metrics once a second, as a Prometheus with a short interval does."""

    def scrape() -> None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:  # noqa: S310 - our URL
            response.read()

    return _repeating(scrape)


def watching(url: str) -> AbstractContextManager[object]:
    """Read the event stream, as an open live page does."""

    def watch() -> None:
        with urllib.request.urlopen(f"{url}/events", timeout=10) as response:  # noqa: S310 - our URL
            while response.readline():
                pass

    return _repeating(watch)


@contextlib.contextmanager
def collecting() -> Iterator[None]:
    """Run a collector at the exporter's default address that accepts and discards all spans.

    Raises OSError if the port is in use.
    """
    if any(name.startswith("OTEL_") for name in child_environment()):
        yield  # these variables name another collector
        return
    with ThreadingHTTPServer(("127.0.0.1", _COLLECTOR_PORT), _Collector) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="collector", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


class _Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def _repeating(request: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            # The worker does not listen before it has started, nor after it has stopped.
            with contextlib.suppress(OSError, http.client.HTTPException):
                request()
            stop.wait(_INTERVAL_S)

    threading.Thread(target=run, name="observer", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
