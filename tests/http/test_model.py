"""/model: shows the model in use, and begins a change for those who have the token."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

from tests.support.sites import FixedHealth
from worker.errors import ChangeUnderway, SettingsError
from worker.http.model import ModelChange
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings

TOKEN = "a-token-of-sixteen"


class Requests:
    """Takes requests as the test says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[Mapping[str, Any]] = []
        self.threads: list[str] = []

    def request(self, members: Mapping[str, Any]) -> ModelChange:
        self.threads.append(threading.current_thread().name)
        if self.error:
            raise self.error
        self.asked.append(members)
        return ModelChange("POST /model", "new", "main", "loading", 7)

    def state(self) -> dict[str, Any]:
        return {"model": {"name": "tiny"}, "change": None}


@pytest.fixture
def requests() -> Requests:
    return Requests()


def serve(requests: Requests | None, token: str | None = TOKEN) -> HttpServer:
    settings = HttpSettings.model_validate({"port": 0, "token": token})
    return HttpServer(settings, Metrics(), FixedHealth(), model=requests)


@pytest.fixture
def server(requests: Requests) -> Iterator[HttpServer]:
    with closing(serve(requests)) as server:
        yield server


def ask(server: HttpServer, body: object = None, **headers: str) -> tuple[int, str]:
    """Send a GET, or a POST with a body."""
    given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET" if sent is None else "POST", "/model", sent, given)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_get_shows_the_model_in_use(server: HttpServer) -> None:
    assert ask(server) == (200, '{"model":{"name":"tiny"},"change":null}')


@pytest.mark.parametrize("body", [{"name": "new", "revision": "main"}, {}, b""])
def test_a_change_that_has_begun_is_accepted(
    server: HttpServer, requests: Requests, body: Any
) -> None:
    status, text = ask(server, body)
    assert (status, requests.asked) == (202, [body or {}])
    assert json.loads(text)["change"] == {
        "trigger": "POST /model",
        "name": "new",
        "revision": "main",
        "outcome": "loading",
        "began_ms": 7,
        "ended_ms": None,
        "reason": "",
    }
    assert requests.threads != ["http"], "reading files holds up no other request"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"new"', b"\xff", b"[" * 9_000])
def test_a_body_that_is_no_object_is_refused(
    server: HttpServer, requests: Requests, body: bytes
) -> None:
    status, text = ask(server, body)
    assert (status, requests.asked) == (400, [])
    assert text.startswith("send a JSON object: members of [model]")


def test_wrong_settings_and_a_second_change_are_refused_with_their_reason(
    server: HttpServer, requests: Requests
) -> None:
    requests.error = SettingsError("model.nam: no such setting")
    assert ask(server, {"nam": 1}) == (400, "model.nam: no such setting\n")
    requests.error = ChangeUnderway("a change to new is under way")
    assert ask(server, {}) == (409, "a change to new is under way\n")


def test_a_change_needs_the_token(server: HttpServer, requests: Requests) -> None:
    assert ask(server, {}, Authorization="Bearer no")[0] == 401
    assert ask(server, None, Authorization="Bearer no")[0] == 401
    with closing(serve(requests, token=None)) as open_server:
        assert ask(open_server) == (200, '{"model":{"name":"tiny"},"change":null}')
        status, text = ask(open_server, {})
    assert (status, text) == (403, "POST /model needs http.token: set one, and send it\n")
    assert requests.asked == []


def test_pages_of_other_sites_and_other_types_are_refused(
    server: HttpServer, requests: Requests
) -> None:
    assert ask(server, {}, Origin="https://elsewhere.example")[0] == 403
    assert ask(server, {}, Content_Type="text/plain")[0] == 415
    assert ask(server, b" " * 70_000)[0] == 413
    assert requests.asked == []


@pytest.mark.parametrize(
    ("path", "method", "allowed", "told"),
    [
        ("/model", "PUT", "GET, HEAD, POST", "only GET, HEAD and POST are allowed here\n"),
        ("/classify", "PUT", "POST", 'send a POST request with a JSON object: {"text": "..."}\n'),
        ("/classify", "GET", "POST", 'send a POST request with a JSON object: {"text": "..."}\n'),
        ("/livez", "POST", "GET, HEAD", "only GET and HEAD are allowed here\n"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has(
    server: HttpServer, path: str, method: str, allowed: str, told: str
) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        found = answer.status, answer.getheader("Allow"), answer.read().decode()
    assert found == (405, allowed, told)


def test_a_server_without_a_model_has_no_such_path() -> None:
    with closing(serve(None)) as server:
        assert ask(server)[0] == 404
        assert ask(server, {})[0] == 405
