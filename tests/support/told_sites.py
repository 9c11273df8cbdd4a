"""The page's own files with snapshots that a test tells, instead of a worker's."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from tests.support.browsers import PATIENCE
from tests.support.snapshots import Told
from worker.http.files import SAFE_HEADERS, page_files

PERIOD = 0.25  # seconds between two snapshots


class ToldSite:
    """Serves a page, its event stream and its history.

    Args:
        told: what the worker tells; tests may change or replace it meanwhile.
    """

    def __init__(self, told: Told) -> None:
        self.told = told
        self.asked: list[str] = []
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"site": self, "files": page_files()})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """End the streams and the server."""
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    site: ToldSite
    files: dict[str, Any]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/events":
            self._stream()
        elif url.path == "/history":
            range_ = parse_qs(url.query)["range"][0]
            self.site.asked.append(range_)
            self._answer("application/json", json.dumps(self.site.told.history(range_)).encode())
        elif url.path in self.files:
            file = self.files[url.path]
            self._answer(file.media_type, file.body)
        else:
            self.send_error(404)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self._end_headers()
        self.wfile.write(body)

    def _end_headers(self) -> None:
        for name, value in SAFE_HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self._end_headers()
        try:
            while True:
                data = json.dumps(self.site.told.snapshot)
                self.wfile.write(f"event: snapshot\ndata: {data}\n\n".encode())
                if self.site.closing.wait(PERIOD):
                    return
        except OSError:  # the reader has left
            return


class ToldVisit:
    """An open page of a told worker, and its errors: of scripts, and of its content policy."""

    def __init__(self, site: ToldSite, page: Page) -> None:
        self.site, self.page = site, page
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self) -> None:
        """Load the page, and wait until it shows a snapshot and a range."""
        self.page.goto(f"http://127.0.0.1:{self.site.port}/")
        self.shows("#rate", re.compile(r"\d"))
        expect(self.page.locator("#legend-latency li")).to_have_count(3, timeout=PATIENCE)

    def shows(self, selector: str, words: str | re.Pattern[str]) -> None:
        """Wait until an element has these words."""
        expect(self.page.locator(selector)).to_contain_text(words, timeout=PATIENCE)


Visiting = Callable[..., AbstractContextManager[ToldVisit]]
