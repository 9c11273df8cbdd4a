"""Serves the event stream: one snapshot a second to every reader, and none without readers.

Owns: the readers and the newest snapshot.
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

from worker.http.snapshot import SnapshotBuilder
from worker.logs import get_logger

log = get_logger(__name__)

MAX_READERS: Final = 200
_INTERVAL: Final = 1.0  # seconds
_RETRY_MS: Final = 2000  # a page that lost the connection asks again after so long


class Events:
    """The event stream of a worker."""

    def __init__(self, snapshots: SnapshotBuilder) -> None:
        self._snapshots = snapshots
        self._readers = 0
        self._newest = b""
        self._refreshed = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """True while no more readers are accepted."""
        return self._readers >= MAX_READERS

    def close(self) -> None:
        """End all streams. On the event loop's thread."""
        self._closed = True
        self._refreshed.set()

    async def stream(
        self, headers: list[tuple[bytes, bytes]], receive: Receive, send: Send
    ) -> None:
        """Serve one reader until it disconnects or the server closes."""
        self._readers += 1
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
        disconnect = asyncio.create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._feed(disconnect, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            disconnect.cancel()
            self._readers -= 1
            if not self._readers and self._refreshing is not None:
                self._refreshing.cancel()
                self._refreshing = None

    async def _feed(self, disconnect: asyncio.Task[None], send: Send) -> None:
        body = frame("history", list(self._snapshots.points))
        body = b"retry: %d\n\n" % _RETRY_MS + body
        while not disconnect.done() and not self._closed:
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            refresh = asyncio.create_task(self._refreshed.wait())
            await asyncio.wait({refresh, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            refresh.cancel()
            body = self._newest

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        due, failed = loop.time(), False
        while not self._closed:
            try:
                self._newest, failed = frame("snapshot", self._snapshots.take()), False
            except Exception:
                if not failed:  # log the first failure only, not one a second
                    log.exception("live page snapshot failed")
                failed = True
            refreshed, self._refreshed = self._refreshed, asyncio.Event()
            refreshed.set()
            due = max(due + _INTERVAL, loop.time())
            await asyncio.sleep(due - loop.time())


def frame(event: str, data: object) -> bytes:
    """Encode one event. JSON escapes line breaks, so the data is one line."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
