"""Routes a request to its handler, and checks first whether it is allowed.

Owns: the ASGI application.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from prometheus_client import make_asgi_app
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from worker.http.ask import SupportsAsk
from worker.http.classify import Classify
from worker.http.events import Events
from worker.http.files import SAFE_HEADERS, page_files
from worker.http.guard import PROBES, Guard
from worker.http.health import Health
from worker.http.history import History, MetricsSource
from worker.http.model import ModelEndpoint, ModelRequests
from worker.http.ranges import Ranges
from worker.http.snapshot import SnapshotBuilder
from worker.settings import HttpSettings

_PATHS: Final = "/metrics, /livez or /readyz"
_OF_PAGE: Final = ("/events", "/history")
# Browsers prompt for the password of the first; programs send the token of the second unprompted.
_CHALLENGES: Final = (
    'Basic realm="streamlabel", charset="UTF-8"',
    'Bearer realm="streamlabel"',
)


class App:
    """The ASGI application.

    Args:
        settings: which parts are on, and who has access.
        metrics, health: served as they are.
        ask_service: answers POST /classify.
        history, snapshots: of the live page.
        model: answers /model; None answers that it is not served.

    Attributes:
        events: the event stream of the live page.
    """

    def __init__(
        self,
        settings: HttpSettings,
        metrics: MetricsSource,
        health: Health,
        ask_service: SupportsAsk,
        history: History,
        snapshots: SnapshotBuilder,
        *,
        model: ModelRequests | None = None,
    ) -> None:
        self._settings, self._guard, self._health = settings, Guard(settings), health
        self._exposition = make_asgi_app(metrics.registry)
        self._files = page_files()
        self._classify = Classify(ask_service, health)
        self._model = ModelEndpoint(settings, model) if model else None
        self._ranges = Ranges(history)
        self.events = Events(history, snapshots)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif scope["path"] == "/metrics" and _is_read(scope):
            await self._metrics(scope, receive, send)
        elif scope["path"] == "/history" and _is_read(scope):
            await self._ranges.response(scope["query_string"])(scope, receive, send)
        elif scope["path"] == "/events" and scope["method"] == "GET":
            await self._events(scope, receive, send)
        elif scope["path"] == "/classify" and scope["method"] == "POST":
            response = await self._classify.answer(scope, receive)
            await response(scope, receive, send)
        elif scope["path"] == "/model" and scope["method"] == "POST" and self._model:
            response = await self._model.change(scope, receive)
            await response(scope, receive, send)
        else:
            await self._response(scope)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the response to a request without access, or for a part that is switched off."""
        path = scope["path"]
        refusal = self._guard.refusal(path, Headers(scope=scope))
        if refusal is not None:
            response = text(*refusal)
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                for challenge in _CHALLENGES:
                    response.headers.append("WWW-Authenticate", challenge)
            return response
        if path == "/classify" and not self._settings.classify:
            return text(404, "http.classify is off")
        of_page = path in _OF_PAGE or path in self._files
        if of_page and not self._settings.page:
            return text(404, f"http.page is off: try {_PATHS}")
        return None

    def _response(self, scope: Scope) -> Response:
        """Return the response to a request that needs no waiting."""
        path = scope["path"]
        if not _is_read(scope) or path == "/classify":
            return self._not_allowed(path)
        if path in PROBES:
            healthy, reason = self._health.live() if path == "/livez" else self._health.ready()
            return text(200 if healthy else 503, reason)
        if path == "/model" and self._model:
            return self._model.show()
        if path == "/events":
            return Response(headers=SAFE_HEADERS, media_type="text/event-stream")
        return self._files.get(path) or text(404, f"not found: try /, {_PATHS}")

    def _not_allowed(self, path: str) -> Response:
        """Return the response to a method that a path does not have."""
        allowed, line = "GET, HEAD", "only GET and HEAD are allowed here"
        if path == "/classify":
            allowed, line = "POST", 'send a POST request with a JSON object: {"text": "..."}'
        elif path == "/model" and self._model:
            allowed, line = "GET, HEAD, POST", "only GET, HEAD and POST are allowed here"
        response = text(405, line)
        response.headers["Allow"] = allowed
        return response

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.events.full:
            await text(503, "too many pages are open; close one")(scope, receive, send)
            return
        head = Response(headers=SAFE_HEADERS, media_type="text/event-stream")
        headers = [(k, v) for k, v in head.raw_headers if k != b"content-length"]
        await self.events.stream(headers, receive, send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the metrics, all or by name, in the format that the client prefers."""
        try:
            # The library awaits a request body that it does not use and that may never arrive.
            await self._exposition(scope, _no_body, send)
        except UnicodeDecodeError:  # raised before anything is sent
            await text(400, "headers and query must be UTF-8")(scope, receive, send)


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _is_read(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD")


def text(status: int, line: str) -> Response:
    """Return a response of one line of plain text."""
    return PlainTextResponse(f"{line}\n", status, SAFE_HEADERS)
