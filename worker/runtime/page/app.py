"""The paths: what is asked, and what is answered with which headers.

Runs on the HTTP thread's loop. Imports the ground floor.
"""

from __future__ import annotations

from typing import Final, Protocol

from prometheus_client import CollectorRegistry, make_asgi_app
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.runtime.health import Health

PATHS: Final = "/metrics, /livez or /readyz"
SAFE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Exported(Protocol):
    """Whoever has metrics to show."""

    registry: CollectorRegistry


def make_app(metrics: Exported, health: Health) -> ASGIApp:
    """The application: one function of a request."""
    exposition = make_asgi_app(metrics.registry)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await text(405, "read only")(scope, receive, send)
        elif path == "/metrics":
            await _metrics(exposition, scope, receive, send)
        elif path in ("/livez", "/readyz"):
            good, words = health.live() if path == "/livez" else health.ready()
            await text(200 if good else 503, words)(scope, receive, send)
        else:
            await text(404, f"try {PATHS}")(scope, receive, send)

    return app


async def _metrics(exposition: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await exposition(scope, receive, send)
    except UnicodeDecodeError:  # before anything was sent: a header or query that is no UTF-8
        await text(400, "headers and query must be UTF-8")(scope, receive, send)


def text(status: int, words: str) -> Response:
    """A line of plain text."""
    return PlainTextResponse(f"{words}\n", status, SAFE)
