"""Who looks at a worker while it is measured: Prometheus, a page, a collector of traces.

Each runs on a daemon thread of its own for the length of a `with`, and counts for no more than what
it asks of the worker.
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

Look = Callable[[str], AbstractContextManager[object]]

_EVERY: Final = 1.0  # seconds
_COLLECTOR: Final = 4318  # OTLP over HTTP


def scraping(url: str) -> AbstractContextManager[object]:
    """Prometheus, and an eager one: /metrics once a second."""

    def scrape() -> None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - ours
            answer.read()

    return _again_and_again(scrape)


def watching(url: str) -> AbstractContextManager[object]:
    """A page that is kept open, while the worker lives."""

    def watch() -> None:
        with urllib.request.urlopen(f"{url}/events", timeout=10) as answer:  # noqa: S310 - ours
            while answer.readline():
                pass

    return _again_and_again(watch)


@contextlib.contextmanager
def collecting() -> Iterator[None]:
    """A collector that takes all spans and keeps none, where the exporter looks by default.

    Raises OSError where the port is taken.
    """
    if any(name.startswith("OTEL_") for name in child_environment()):
        yield  # they go where these variables say
        return
    with ThreadingHTTPServer(("127.0.0.1", _COLLECTOR), _Collector) as server:
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
        """Nothing of it is news."""


@contextlib.contextmanager
def _again_and_again(look: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            # The worker has not begun to listen yet, or has ended.
            with contextlib.suppress(OSError, http.client.HTTPException):
                look()
            ended.wait(_EVERY)

    threading.Thread(target=run, name="onlooker", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
