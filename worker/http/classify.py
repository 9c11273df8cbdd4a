"""Handles POST /classify: one text in, its most probable labels out.

The request may have the record that the text is from, whose fields decide which models apply.

Owns: the flag that lets one question in at a time.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.

The model's own threads answer (`ask`), in a pool those of another process (`pool.ask`). Pages of
other sites are refused (`guard`), and each wait has a bound.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope

from worker.core.visible import blank
from worker.http.ask import Answer, SupportsAsk, Unanswerable
from worker.http.files import SAFE_HEADERS
from worker.http.guard import is_foreign_site
from worker.http.health import Health

MAX_CHARACTERS: Final = 5_000
_MAX_BYTES: Final = 65_536  # enough for 5,000 characters, each of them escaped
_BODY_TIMEOUT: Final = 10.0  # seconds
_SHAPE: Final = 'send a JSON object: {"text": "..."}'
_TOO_LONG: Final = f"text too long: at most {MAX_CHARACTERS} characters"
ANSWER_TIMEOUT: Final = 20.0  # seconds: a micro-batch of a slow machine, in each of two stages


class Refused(Exception):
    """The request is refused, with an HTTP status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Classify:
    """The endpoint. Answers one question at a time."""

    def __init__(self, ask_service: SupportsAsk, health: Health) -> None:
        self._ask_service, self._health = ask_service, health
        self._busy = False

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """Return the labels with their probabilities, or the reason for a refusal."""
        try:
            return await self._answer(Request(scope, receive))
        except Refused as error:
            return PlainTextResponse(f"{error}\n", error.status, SAFE_HEADERS)

    async def _answer(self, request: Request) -> Response:
        check_headers(request.headers)
        text, record = _question(await body_of(request, _TOO_LONG))
        ready, reason = self._health.ready()
        if not ready:
            raise Refused(503, f"the model is not ready: {reason}")
        if not self._ask_service.ready:
            raise Refused(503, "no model is free to answer; try again")
        if self._busy:
            raise Refused(503, "another text is being classified; try again")
        self._busy = True
        try:
            answer = asyncio.wrap_future(self._ask_service.ask(text, record))
            return _response(await asyncio.wait_for(answer, ANSWER_TIMEOUT))
        except TimeoutError:
            raise Refused(
                503, f"no answer within {ANSWER_TIMEOUT:g} s: the worker is busy; try again"
            ) from None
        except Unanswerable as error:
            raise Refused(500, str(error)) from error
        finally:
            self._busy = False


def check_headers(headers: Headers) -> None:
    """Refuse a request of another site's page, and a body that is not declared as JSON."""
    if is_foreign_site(headers):
        raise Refused(403, "requests from another site's page are refused")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "send Content-Type: application/json")


async def body_of(request: Request, too_long: str) -> bytes:
    """Return the body, or refuse one that is late, or too long for this reason."""
    body = b""
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            async for part in request.stream():
                body += part
                if len(body) > _MAX_BYTES:
                    raise Refused(413, too_long)
    except (TimeoutError, ClientDisconnect):
        raise Refused(408, f"the request was not complete within {_BODY_TIMEOUT:g} s") from None
    return body


def _question(body: bytes) -> tuple[str, dict[str, Any] | None]:
    """Return the text, and the record that it is from if the request has one."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, _SHAPE) from None
    text = document.get("text") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise Refused(400, _SHAPE)
    if blank(text):
        raise Refused(400, "the text is blank")
    if len(text) > MAX_CHARACTERS:
        raise Refused(413, f"text too long: {len(text)} characters, at most {MAX_CHARACTERS}")
    record = document.get("record")
    if record is not None and not isinstance(record, dict):
        raise Refused(400, "record must be a JSON object: the fields that conditions look at")
    return text, record


def _response(answer: Answer) -> Response:
    document = {**answer.said, "milliseconds": round(answer.seconds * 1000, 3)}
    return JSONResponse(document, headers=SAFE_HEADERS)
