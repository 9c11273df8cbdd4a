"""POST /classify: one text in, the likeliest labels out. The only thing that can be sent.

Runs on the HTTP thread's loop; the answer comes from the model's own threads (`runtime.box`), in a
pool from another process (`runtime.pool.box`). Other sites can't ask in a reader's name, and each
wait has an end. Imports the ground floor and `box`.
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
from worker.http.files import SAFE
from worker.http.guard import foreign_site
from worker.http.health import Health
from worker.http.recent_posts import ranked

CHARACTERS: Final = 5_000
_BYTES: Final = 65_536  # as many characters, each escaped
_BODY_WITHIN: Final = 10.0  # seconds
ANSWER_WITHIN: Final = 20.0  # seconds: a micro-batch of a slow machine, in each of two stages


class Refused(Exception):
    """The request can't be answered; with the status and words that say why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Classify:
    """Answers one question at a time."""

    def __init__(self, box: SupportsAsk, health: Health) -> None:
        self._box, self._health = box, health
        self._busy = False

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """The probabilities, or why there are none."""
        try:
            return await self._answer(Request(scope, receive))
        except Refused as error:
            return PlainTextResponse(f"{error}\n", error.status, SAFE)

    async def _answer(self, request: Request) -> Response:
        _check(request.headers)
        text = _text(await _body(request))
        good, words = self._health.ready()
        if not good:
            raise Refused(503, f"the model is not ready: {words}")
        if not self._box.ready:
            raise Refused(503, "no model is free to be asked; try again")
        if self._busy:
            raise Refused(503, "another text is being classified; try again")
        self._busy = True
        try:
            asked = asyncio.wrap_future(self._box.ask(text))
            return _shown(await asyncio.wait_for(asked, ANSWER_WITHIN))
        except TimeoutError:
            raise Refused(
                503, f"no answer within {ANSWER_WITHIN:g} s: the worker is busy"
            ) from None
        except Unanswerable as error:
            raise Refused(500, str(error)) from error
        finally:
            self._busy = False


def _check(headers: Headers) -> None:
    if foreign_site(headers):
        raise Refused(403, "another site's page may not ask")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "send Content-Type: application/json")


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(_BODY_WITHIN):
            async for part in request.stream():
                body += part
                if len(body) > _BYTES:
                    raise Refused(413, f"too long: at most {CHARACTERS} characters")
    except (TimeoutError, ClientDisconnect):
        raise Refused(408, "the request did not come to its end") from None
    return body


def _text(body: bytes) -> str:
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, 'send an object: {"text": "..."}') from None
    text = given.get("text") if isinstance(given, dict) else None
    if not isinstance(text, str):
        raise Refused(400, 'send an object: {"text": "..."}')
    if blank(text):
        raise Refused(400, "the text is blank")
    if len(text) > CHARACTERS:
        raise Refused(413, f"too long: {len(text)} characters, at most {CHARACTERS}")
    return text


def _shown(answer: Answer) -> Response:
    scores = ranked(answer.labels, answer.prediction.probabilities)
    found = {
        "label": scores[0][0],
        "scores": scores,
        "token_count": answer.prediction.token_count,
        "truncated": answer.prediction.truncated,
        "milliseconds": round(answer.seconds * 1000, 3),
    }
    return JSONResponse(found, headers=SAFE)
