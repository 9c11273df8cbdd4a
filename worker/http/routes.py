"""The paths: what is asked, and what is answered with which headers.

Runs on the HTTP thread's loop. Imports the ground floor and the rooms beside it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from prometheus_client import make_asgi_app
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from worker.clock import Clock
from worker.http.ask import SupportsAsk
from worker.http.classify import Classify
from worker.http.events import Events
from worker.http.files import SAFE, page_files
from worker.http.guard import PROBES, Guard
from worker.http.health import Health
from worker.http.recent_posts import PostSource
from worker.http.snapshot import MetricsSource, Snapshot
from worker.settings import HttpSettings

_PATHS: Final = "/metrics, /livez or /readyz"
# A browser asks its reader for the password; programs send the token itself.
_CHALLENGES: Final = (
    'Basic realm="streamlabel", charset="UTF-8"',
    'Bearer realm="streamlabel"',
)


class App:
    """The application: one function of a request.

    Args:
        settings: what is switched on, and who may ask.
        metrics, health, posted: what is shown.
        box: what is asked.
        clock: dates the page's pictures.

    Attributes:
        events: for those who watch the page.
    """

    def __init__(
        self,
        settings: HttpSettings,
        metrics: MetricsSource,
        health: Health,
        posted: PostSource,
        box: SupportsAsk,
        clock: Clock,
    ) -> None:
        self._settings, self._guard, self._health = settings, Guard(settings), health
        self._exposition = make_asgi_app(metrics.registry)
        self._files = page_files()
        self._classify = Classify(box, health)
        self.events = Events(Snapshot(metrics, health, posted, clock, box=settings.classify))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif scope["path"] == "/metrics" and _reads(scope):
            await self._metrics(scope, receive, send)
        elif scope["path"] == "/events" and scope["method"] == "GET":
            await self._events(scope, receive, send)
        elif scope["path"] == "/classify" and scope["method"] == "POST":
            answer = await self._classify.answer(scope, receive)
            await answer(scope, receive, send)
        else:
            await self._answer(scope)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Of who may not ask, and of what is switched off."""
        path = scope["path"]
        refused = self._guard.refusal(path, Headers(scope=scope))
        if refused is not None:
            answer = text(*refused)
            if answer.status_code == HTTPStatus.UNAUTHORIZED:
                for challenge in _CHALLENGES:
                    answer.headers.append("WWW-Authenticate", challenge)
            return answer
        if path == "/classify" and not self._settings.classify:
            return text(404, "http.classify is off")
        if (path == "/events" or path in self._files) and not self._settings.page:
            return text(404, f"http.page is off: try {_PATHS}")
        return None

    def _answer(self, scope: Scope) -> Response:
        """Of all that is answered at once."""
        path = scope["path"]
        if not _reads(scope):
            return text(405, "read only")
        if path in PROBES:
            good, words = self._health.live() if path == "/livez" else self._health.ready()
            return text(200 if good else 503, words)
        if path == "/classify":
            return text(405, "POST a JSON object to it")
        if path == "/events":
            return Response(headers=SAFE, media_type="text/event-stream")
        return self._files.get(path) or text(404, f"try /, {_PATHS}")

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.events.full:
            await text(503, "too many pages are open; close one")(scope, receive, send)
            return
        head = Response(headers=SAFE, media_type="text/event-stream")
        headers = [(k, v) for k, v in head.raw_headers if k != b"content-length"]
        await self.events.stream(headers, receive, send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is asked for, in the form that the reader prefers."""
        try:
            # The library waits for a body that nobody reads, and that may never come.
            await self._exposition(scope, _no_body, send)
        except UnicodeDecodeError:  # before anything was sent: a header or query that is no UTF-8
            await text(400, "headers and query must be UTF-8")(scope, receive, send)


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _reads(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD")


def text(status: int, words: str) -> Response:
    """A line of plain text."""
    return PlainTextResponse(f"{words}\n", status, SAFE)
