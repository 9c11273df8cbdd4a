"""Server-sent events: one picture a second for all who watch, and none while nobody does.

Owns the readers. Runs on the HTTP thread's loop. Nobody has a queue: each reader takes the newest
picture when it is through with the last one, so that a slow one misses some and costs nothing. One
that stopped reading is cut off by the listening socket's time-out (`runtime.http`). Imports `picture`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from starlette.types import Receive, Send

from worker.http.snapshot import Snapshot
from worker.logs import get_logger

log = get_logger(__name__)

READERS: Final = 200
_EVERY: Final = 1.0  # seconds
_AGAIN: Final = 2000  # ms until a page that lost the connection asks again


class Events:
    """Draws for those who watch."""

    def __init__(self, picture: Snapshot) -> None:
        self._picture = picture
        self._readers = 0
        self._newest = b""
        self._drawn = asyncio.Event()
        self._drawing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether no more readers are taken."""
        return self._readers >= READERS

    def close(self) -> None:
        """Let all readers go. On the loop's thread."""
        self._closed = True
        self._drawn.set()

    async def stream(
        self, headers: list[tuple[bytes, bytes]], receive: Receive, send: Send
    ) -> None:
        """Answer one reader until it leaves or does not read any more."""
        self._readers += 1
        if self._drawing is None:
            self._drawing = asyncio.create_task(self._draw())
        gone = asyncio.create_task(_left(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._feed(gone, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            self._readers -= 1
            if not self._readers and self._drawing is not None:
                self._drawing.cancel()
                self._drawing = None

    async def _feed(self, gone: asyncio.Task[None], send: Send) -> None:
        body = frame("history", list(self._picture.points))
        body = b"retry: %d\n\n" % _AGAIN + body
        while not gone.done() and not self._closed:
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            waits = asyncio.create_task(self._drawn.wait())
            await asyncio.wait({waits, gone}, return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()
            body = self._newest

    async def _draw(self) -> None:
        loop = asyncio.get_running_loop()
        due, failed = loop.time(), False
        while not self._closed:
            try:
                self._newest, failed = frame("picture", self._picture.take()), False
            except Exception:
                if not failed:  # once, and not once a second
                    log.exception("the page can't be drawn")
                failed = True
            waiting, self._drawn = self._drawn, asyncio.Event()
            waiting.set()
            due = max(due + _EVERY, loop.time())
            await asyncio.sleep(due - loop.time())


def frame(event: str, data: object) -> bytes:
    """One event; JSON escapes every line break."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
