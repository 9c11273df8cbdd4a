"""Serves the event stream: one snapshot a second to every reader, and none without readers.

Owns: the readers and the newest snapshot; it takes the readings of the history, one a second.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.

No reader has a queue: each takes the newest snapshot once it has sent the one before, so a slow
reader skips some and costs nothing. The listening socket's timeout (`server`) drops a reader that
has stopped reading.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from starlette.types import Receive, Send

from worker.http.history import History
from worker.http.snapshot import SnapshotBuilder
from worker.logs import get_logger

log = get_logger(__name__)

MAX_READERS: Final = 200
_INTERVAL: Final = 1.0  # seconds
_RETRY_MS: Final = 2000  # a page that lost the connection asks again after so long


class Events:
    """The event stream of a worker."""

    def __init__(self, history: History, snapshots: SnapshotBuilder) -> None:
        self._history, self._snapshots = history, snapshots
        self._readers = 0
        self._newest = b""
        self._refreshed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._failed = self._closed = False

    @property
    def full(self) -> bool:
        """True while no more readers are accepted."""
        return self._readers >= MAX_READERS

    def start(self) -> None:
        """Take readings from now on. On the event loop's thread."""
        self._reading = asyncio.create_task(self._read())

    def close(self) -> None:
        """End all streams. On the event loop's thread."""
        self._closed = True
        self._refreshed.set()

    async def stream(
        self, headers: list[tuple[bytes, bytes]], receive: Receive, send: Send
    ) -> None:
        """Serve one reader until it disconnects or the server closes."""
        self._readers += 1
        if self._readers == 1:
            self._newest = frame("snapshot", self._snapshots.build())
        disconnect = asyncio.create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._feed(disconnect, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            disconnect.cancel()
            self._readers -= 1

    async def _feed(self, disconnect: asyncio.Task[None], send: Send) -> None:
        body = b"retry: %d\n\n" % _RETRY_MS + self._newest
        while not disconnect.done() and not self._closed:
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            refresh = asyncio.create_task(self._refreshed.wait())
            await asyncio.wait({refresh, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            refresh.cancel()
            body = self._newest

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._closed:
            self._refresh()
            refreshed, self._refreshed = self._refreshed, asyncio.Event()
            refreshed.set()
            due = max(due + _INTERVAL, loop.time())
            await asyncio.sleep(due - loop.time())

    def _refresh(self) -> None:
        try:
            self._history.read()
            if self._readers:
                self._newest = frame("snapshot", self._snapshots.build())
            self._failed = False
        except Exception:
            if not self._failed:  # log the first failure only, not one a second
                log.exception("live page snapshot failed")
            self._failed = True


def frame(event: str, data: object) -> bytes:
    """Encode one event. JSON escapes line breaks, so the data is one line."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
