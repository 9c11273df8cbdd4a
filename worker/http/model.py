"""Handles /model: GET shows the model in use and its last change, POST begins a change.

Owns: `ModelChange`, and the check of a request.
Thread: http, on the event loop; a request itself is read and begun on another thread.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope

from worker.errors import ChangeUnderway, SettingsError
from worker.http.classify import Refused, body_of, check_headers
from worker.http.files import SAFE_HEADERS
from worker.settings import HttpSettings, Settings

ChangeOutcome = Literal["loading", "changed", "unchanged", "refused", "failed"]

_SHAPE: Final = 'send a JSON object: members of [model], such as {"name": "..."}, or {}'


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A change of the model that was requested.

    Attributes:
        trigger: what requested it: `SIGHUP`, `POST /model` or `settings file`.
        name, revision: of the requested model, as in the settings; empty if they can't be read.
        outcome: `loading` until it has ended. `refused`: the model or the settings don't fit.
            `failed`: it could not be loaded, or failed its self-check. With both, the model that
            was in use stays.
        reason: why it was refused or failed, or that nothing was to be changed.
        began_ms, ended_ms: wall clock.
    """

    trigger: str
    name: str
    revision: str | None
    outcome: ChangeOutcome
    began_ms: int
    ended_ms: int | None = None
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the members for a JSON document."""
        return asdict(self)


class ModelControl(Protocol):
    """Changes the model: of one worker, or of each process of a pool. Any thread may call it."""

    @property
    def settings(self) -> Settings:
        """The settings with the model in use."""
        ...

    def change(self, settings: Settings, trigger: str) -> ModelChange:
        """Begin to change to the model of these settings; their other members don't matter.

        Raises:
            ChangeUnderway: another change has not ended yet.
        """
        ...

    def refuse(self, trigger: str, reason: str) -> None:
        """Note a request that can't be begun, because the settings can't be read."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the members `model` and `change`; each may be null."""
        ...


class ModelRequests(Protocol):
    """Takes the requests of /model. Any thread may call it."""

    @property
    def settings(self) -> Settings:
        """The settings with the model in use."""
        ...

    def request(self, members: Mapping[str, Any]) -> ModelChange:
        """Begin a change; without members, to the model that the settings file has now.

        Args:
            members: members of `[model]` that differ from those in force.

        Raises:
            SettingsError: the members or the settings file are wrong, or there is no file.
            ChangeUnderway: another change has not ended yet.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return the members `model` and `change`; each may be null."""
        ...


class ModelEndpoint:
    """The endpoint.

    Args:
        settings: a POST needs `http.token`.
        requests: takes them.
    """

    def __init__(self, settings: HttpSettings, requests: ModelRequests) -> None:
        self._has_token, self._requests = settings.token is not None, requests

    def show(self) -> Response:
        """Answer a GET."""
        return JSONResponse(self._requests.state(), headers=SAFE_HEADERS)

    async def change(self, scope: Scope, receive: Receive) -> Response:
        """Answer a POST: 202 and the change that has begun, or the reason for a refusal."""
        try:
            return await self._change(Request(scope, receive))
        except Refused as error:
            return PlainTextResponse(f"{error}\n", error.status, SAFE_HEADERS)

    async def _change(self, request: Request) -> Response:
        if not self._has_token:
            raise Refused(403, "POST /model needs http.token: set one, and send it")
        check_headers(request.headers)
        members = _members(await body_of(request, "request too long"))
        try:
            # It reads files, and this thread must not wait for them.
            change = await asyncio.to_thread(self._requests.request, members)
        except SettingsError as error:
            raise Refused(400, str(error)) from None
        except ChangeUnderway as error:
            raise Refused(409, str(error)) from None
        return JSONResponse({"change": change.as_json()}, 202, SAFE_HEADERS)


def _members(body: bytes) -> dict[str, Any]:
    try:
        document: Any = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Refused(400, _SHAPE) from None
    if not isinstance(document, dict):
        raise Refused(400, _SHAPE)
    return document
