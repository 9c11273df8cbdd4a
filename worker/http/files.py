"""Serves the page's own files from `worker/web/`.

Owns: their contents, read once at start, and the security headers of every response.
Thread: main reads them, http serves them.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from starlette.responses import Response

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# The page may load the worker's own files only: no inline code, no other host, no frame around it.
SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page_files() -> dict[str, Response]:
    """Return the response for each path: all files of a known type; the page itself is at `/`."""
    responses = {
        f"/{file.name}": Response(file.read_bytes(), headers=SAFE_HEADERS, media_type=kind)
        for file in (files("worker") / "web").iterdir()
        if (kind := _TYPES.get(file.name.rpartition(".")[2]))
    }
    return {"/": responses.pop("/page.html")} | responses
