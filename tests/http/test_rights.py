"""Access to the worker's HTTP: host names, the token, and parts that are switched off."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support.sites import JSON, FixedHealth
from tests.support.workers import ObedientModel, clock
from worker.errors import SettingsError
from worker.http.ask import AskQueue
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings, load, plain_values

TOKEN = "a-token-of-32-letters-0123456789"
READ = ("/", "/page.js", "/events", "/history", "/metrics")
PROBES = ("/livez", "/readyz")
Serve = Callable[..., HttpServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers: `serve(page=False)` starts one with these settings. Closes all afterwards."""
    with ExitStack() as stack:

        def start(**settings: object) -> HttpServer:
            http = HttpSettings.model_validate({"port": 0} | settings)
            ask_queue, model = AskQueue(clock), ObedientModel()
            ask_queue.tokenise(model.aside)  # there is a model now
            server = HttpServer(http, Metrics(), FixedHealth(), ask_service=ask_queue)
            stack.enter_context(closing(server))
            return server

        yield start


def ask(server: HttpServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Return the status and the first line of the body; `Host=""` sends no Host header."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(b"{}" if method == "POST" else None)
        response = connection.getresponse()
        return response.status, response.readline().decode().strip()


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*READ, *PROBES])
def test_on_loopback_other_host_names_are_refused(serve: Serve, path: str) -> None:
    """A site whose name resolves to 127.0.0.1 could otherwise read the page."""
    server = serve()
    assert ask(server, path, "HEAD", Host="elsewhere.example")[0] == 403
    assert ask(server, path, "HEAD", Host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize("path", [*PROBES, "/metrics"])
@pytest.mark.parametrize("host", ["10.0.0.7:9100", "[fd00::7]:9100", "10.0.0.7", ""])
def test_a_probe_by_address_is_answered(serve: Serve, path: str, host: str) -> None:
    """An address is not a foreign name; a probe in HTTP/1.0 sends no host at all."""
    if host:
        assert ask(serve(), path, "HEAD", Host=host)[0] == 200
    else:
        with closing(http.client.HTTPConnection("127.0.0.1", serve().port)) as connection:
            connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
            connection.putrequest("HEAD", path, skip_host=True)
            connection.endheaders()
            assert connection.getresponse().status == 200


@pytest.mark.parametrize("path", [*READ, *PROBES])
def test_on_a_network_only_listed_names_are_answered(serve: Serve, path: str) -> None:
    server = serve(host="0.0.0.0", allowed_hosts="worker, labels.example.com")
    for host in ("worker:9100", "Labels.Example.Com", "localhost", "10.0.0.7:9100"):
        assert ask(server, path, "HEAD", Host=host)[0] == 200, host
    status, reason = ask(server, path, Host="elsewhere.example")
    assert status == 403
    assert "http.allowed_hosts" in reason


def test_on_a_network_without_a_list_every_name_is_answered(serve: Serve) -> None:
    assert ask(serve(host="0.0.0.0"), "/", "HEAD", Host="elsewhere.example")[0] == 200


def test_allowed_hosts_come_as_a_string_or_as_a_list() -> None:
    wanted = ("worker", "10.0.0.7")
    settings = load({"http.allowed_hosts": " Worker, 10.0.0.7 "}, environ={}).settings
    assert settings.http.allowed_hosts == wanted
    assert load({"http.allowed_hosts": ["worker", "10.0.0.7"]}, environ={}).settings == settings
    assert load(json.loads(json.dumps(plain_values(settings))), environ={}).settings == settings


@pytest.mark.parametrize("name", ["http://worker", "worker:9100", "a b", ",", "*"])
def test_an_invalid_host_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"http\.allowed_hosts"):
        load({"http.allowed_hosts": name}, environ={})


# -- the token -----------------------------------------------------------------------------------


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize("path", READ)
def test_a_request_needs_the_token(serve: Serve, path: str) -> None:
    server = serve(token=TOKEN)
    for wrong in (
        "",
        f"Bearer {TOKEN}x",
        "Bearer",
        TOKEN,
        basic("me:no"),
        basic(TOKEN),
        "Basic ###",
    ):
        assert ask(server, path, "HEAD", Authorization=wrong)[0] == 401, wrong
    for right in (f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(f":{TOKEN}"), basic(f"me:{TOKEN}")):
        assert ask(server, path, "HEAD", Authorization=right)[0] == 200, right


def test_a_browser_prompts_for_the_token(serve: Serve) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", serve(token=TOKEN).port)) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.headers.get_all("www-authenticate") == [
            'Basic realm="streamlabel", charset="UTF-8"',
            'Bearer realm="streamlabel"',
        ]
        assert b"http.token" in response.read()


def test_classify_needs_the_token_too(serve: Serve) -> None:
    server = serve(token=TOKEN)
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(server, "/classify", "POST", **JSON)[0] == 401
    assert ask(server, "/classify", "POST", **JSON, **right) == (
        400,
        'send a JSON object: {"text": "..."}',
    )


@pytest.mark.parametrize("path", PROBES)
def test_probes_need_no_token(serve: Serve, path: str) -> None:
    """Platforms have no place to keep one, and a probe returns a state, no data."""
    assert ask(serve(token=TOKEN), path) == (200, "running")


def test_a_token_is_read_from_a_file_and_never_printed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("secrets") / "token"
    file.write_text(f"{TOKEN}\n")
    settings = load(environ={"STREAMLABEL_HTTP_TOKEN_FILE": str(file)}).settings
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize(
    "token", ["short", "with a space, and more", "with-ümlauts-in-it", "x" * 15]
)
def test_a_token_that_is_short_or_not_a_header_value_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match=r"http\.token") as refused:
        load({"http.token": token}, environ={})
    assert token not in str(refused.value)


# -- switched off --------------------------------------------------------------------------------


def test_the_page_can_be_switched_off(serve: Serve) -> None:
    server = serve(page=False)
    for path in ("/", "/page.js", "/events", "/history"):
        assert ask(server, path) == (404, "http.page is off: try /metrics, /livez or /readyz")
    assert [ask(server, path)[0] for path in ("/metrics", "/livez")] == [200, 200]
    assert ask(server, "/classify", "POST", **JSON)[0] == 400, "programs can still classify"


def test_classify_can_be_switched_off(serve: Serve) -> None:
    server = serve(classify=False)
    assert ask(server, "/classify", "POST", **JSON) == (404, "http.classify is off")
    assert [ask(server, path)[0] for path in ("/", "/metrics", "/livez")] == [200] * 3
    assert server._app.events._snapshots.build()["worker"]["classify"] is False
    assert serve()._app.events._snapshots.build()["worker"]["classify"] is True
