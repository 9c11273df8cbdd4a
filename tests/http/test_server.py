"""The worker over HTTP: what is answered, with which headers, and who is cut off."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.sites import Well
from tests.support.workers import clock
from worker.errors import SettingsError
from worker.http import server as module
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings


@pytest.fixture
def health() -> Well:
    return Well()


@pytest.fixture
def server(health: Well) -> Iterator[HttpServer]:
    with closing(HttpServer(HttpSettings(port=0), Metrics(), health)) as server:
        yield server


def ask(
    server: HttpServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by their lower-case names, and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def test_metrics_come_in_the_format_that_is_asked_for(server: HttpServer) -> None:
    _, headers, body = ask(server, "/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    assert b"streamlabel_records_published_total 0.0" in body
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
    _, headers, body = ask(server, "/metrics", **asked)
    assert headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "streamlabel_records_published" in names


def test_some_of_the_metrics_can_be_asked_for(server: HttpServer) -> None:
    body = ask(server, "/metrics?name[]=streamlabel_paused")[2]
    assert {line.split()[0] for line in body.splitlines() if line[:1] != b"#"} == {
        b"streamlabel_paused"
    }


def test_what_is_no_text_is_no_fault_of_the_worker(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: \xff\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_health_is_a_status_and_its_words(server: HttpServer, health: Well) -> None:
    for path in ("/livez", "/readyz"):
        health.verdict = (True, "running")
        assert ask(server, path)[::2] == (200, b"running\n")
        health.verdict = (False, "stalled")
        status, headers, body = ask(server, path)
        assert (status, body) == (503, b"stalled\n")
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/metrics", "/livez", "/nothing"])
def test_nothing_can_be_written(server: HttpServer, method: str, path: str) -> None:
    assert ask(server, path, method)[::2] == (405, b"read only\n")


def test_a_head_has_no_body(server: HttpServer) -> None:
    for path in ("/metrics", "/livez"):
        assert ask(server, path, "HEAD")[::2] == (200, b"")


def test_an_unknown_path_names_those_there_are(server: HttpServer) -> None:
    status, _, body = ask(server, "/nothing")
    assert status == 404
    assert b"/metrics" in body


def test_a_port_that_is_taken_is_an_error_that_names_the_setting(server: HttpServer) -> None:
    with pytest.raises(SettingsError, match=rf"http\.port = {server.port}: can't listen on 127"):
        HttpServer(HttpSettings(port=server.port), Metrics(), Well())


@pytest.mark.parametrize("host", ["x" * 70, "a..b", "not an address"])
def test_a_host_that_there_is_not_is_an_error_that_names_it(host: str) -> None:
    with pytest.raises(SettingsError, match=f"can't listen on {host}: "):
        HttpServer(HttpSettings(host=host, port=0), Metrics(), Well())


def test_it_listens_on_an_address_of_either_kind() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with (
        closing(HttpServer(HttpSettings(host="::1", port=0), Metrics(), Well())) as server,
        socket.create_connection(("::1", server.port), timeout=10) as raw,
    ):
        raw.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("said", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
def test_whoever_connects_and_does_not_ask_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Or a few thousand such connections would use up the process's files."""
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    with (
        closing(HttpServer(HttpSettings(port=0), Metrics(), Well())) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw,
    ):
        raw.sendall(said)
        began = clock.monotonic()
        assert raw.recv(1) == b""
        assert 0.2 < clock.monotonic() - began < 3


def test_a_scraper_may_keep_its_connection(server: HttpServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with closing(connection):
        for _ in range(3):
            connection.request("GET", "/livez")
            first = connection.sock
            assert connection.getresponse().read() == b"running\n"
            assert connection.sock is first


def test_close_ends_the_thread_and_frees_the_port() -> None:
    server = HttpServer(HttpSettings(port=0), Metrics(), Well())
    assert ask(server, "/livez")[0] == 200
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/livez")
    HttpServer(HttpSettings(port=server.port), Metrics(), Well()).close()


def test_a_body_that_never_comes_holds_no_scrape_up(server: HttpServer) -> None:
    """Nobody reads it; who announced it is answered, and can ask again."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as asking:
        asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        told = b""
        while b"streamlabel_state" not in told:
            part = asking.recv(65_536)
            assert part, told
            told += part
    assert told.startswith(b"HTTP/1.1 200 OK")
