"""Answers GET /history?range=5m|1h|24h: the points of the charts.

Owns: the last answer of each range, which stays until there is a newer point.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, Response

from worker.http.files import SAFE_HEADERS
from worker.http.history import RANGES, History

_NAMES: Final = ", ".join(RANGES)
_DEFAULT: Final = next(iter(RANGES))


class Ranges:
    """The endpoint. Points change at most once a second, so many readers cost as much as one."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._answers: dict[str, tuple[int, bytes]] = {}

    def response(self, query: bytes) -> Response:
        """Return the points of a range as JSON, or the reason for a refusal."""
        name = parse_qs(query.decode("latin-1")).get("range", [_DEFAULT])[-1]
        if name not in RANGES:
            return PlainTextResponse(f"range must be one of {_NAMES}\n", 400, SAFE_HEADERS)
        return Response(self._body(name), headers=SAFE_HEADERS, media_type="application/json")

    def _body(self, name: str) -> bytes:
        version = self._history.version(name)
        known = self._answers.get(name)
        if known is None or known[0] != version:
            points = json.dumps(self._history.points(name), separators=(",", ":")).encode()
            known = self._answers[name] = (version, points)
        return known[1]
