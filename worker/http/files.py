"""The page's own files, read once out of `worker/web/`. Imports nothing of ours."""

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
_NAMES: Final = (
    *("page.html", "page.css", "page.js", "charts.js", "panels.js", "box.js", "words.js"),
    *("icon.svg", "uPlot.min.css", "uPlot.iife.min.js"),
)
# Nothing but the worker's own files, neither inline nor from elsewhere, and in nobody's frame.
SAFE: Final = {
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
    """Path -> answer; the page itself is at `/`."""
    folder = files("worker") / "web"
    found = {
        f"/{name}": Response(
            (folder / name).read_bytes(), headers=SAFE, media_type=_TYPES[name.rpartition(".")[2]]
        )
        for name in _NAMES
    }
    return {"/": found.pop("/page.html")} | found
