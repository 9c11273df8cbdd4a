"""The HTTP server: responses, headers, and timeouts of idle connections."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.sites import FixedHealth
from tests.support.workers import clock
from worker.errors import SettingsError
from worker.http import server as server_module
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.settings import HttpSettings


@pytest.fixture
def health() -> FixedHealth:
    return FixedHealth()


@pytest.fixture
def server(health: FixedHealth) -> Iterator[HttpServer]:
    with closing(HttpServer(HttpSettings(port=0), Metrics(), health)) as server:
        yield server


def ask(
    server: HttpServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers by lower-case name, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()


def test_metrics_come_in_the_requested_format(server: HttpServer) -> None:
    _, headers, body = ask(server, "/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    assert b"streamlabel_records_published_total 0.0" in body
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    _, headers, body = ask(server, "/metrics", **accept)
    assert headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "streamlabel_records_published" in names


def test_a_scrape_can_select_metrics_by_name(server: HttpServer) -> None:
    body = ask(server, "/metrics?name[]=streamlabel_paused")[2]
    assert {line.split()[0] for line in body.splitlines() if line[:1] != b"#"} == {
        b"streamlabel_paused"
    }


def test_a_header_that_is_not_utf8_is_a_bad_request(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: \xff\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_health_is_a_status_and_a_reason(server: HttpServer, health: FixedHealth) -> None:
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
def test_methods_that_write_are_refused(server: HttpServer, method: str, path: str) -> None:
    assert ask(server, path, method)[::2] == (405, b"only GET and HEAD are allowed here\n")


def test_a_head_has_no_body(server: HttpServer) -> None:
    for path in ("/metrics", "/livez"):
        assert ask(server, path, "HEAD")[::2] == (200, b"")


def test_an_unknown_path_lists_the_known_ones(server: HttpServer) -> None:
    status, _, body = ask(server, "/nothing")
    assert status == 404
    assert b"/metrics" in body


def test_the_error_of_a_taken_port_names_the_setting(server: HttpServer) -> None:
    with pytest.raises(SettingsError, match=rf"http\.port = {server.port}: cannot listen on 127"):
        HttpServer(HttpSettings(port=server.port), Metrics(), FixedHealth())


@pytest.mark.parametrize("host", ["x" * 70, "a..b", "not an address"])
def test_the_error_of_an_invalid_host_names_it(host: str) -> None:
    with pytest.raises(SettingsError, match=f"cannot listen on {host}: "):
        HttpServer(HttpSettings(host=host, port=0), Metrics(), FixedHealth())


def test_it_listens_on_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with (
        closing(HttpServer(HttpSettings(host="::1", port=0), Metrics(), FixedHealth())) as server,
        socket.create_connection(("::1", server.port), timeout=10) as raw,
    ):
        raw.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_request_times_out(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """A few thousand of them would otherwise use up the process's files."""
    monkeypatch.setattr(server_module, "_REQUEST_TIMEOUT", 0.3)
    with closing(HttpServer(HttpSettings(port=0), Metrics(), FixedHealth())) as server:
        began = clock.monotonic()  # the server's time begins with the connection
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(sent)
            assert raw.recv(1) == b""
        assert clock.monotonic() - began > 0.2


def test_a_scraper_can_reuse_its_connection(server: HttpServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with closing(connection):
        for _ in range(3):
            connection.request("GET", "/livez")
            first = connection.sock
            assert connection.getresponse().read() == b"running\n"
            assert connection.sock is first


def test_close_ends_the_thread_and_frees_the_port() -> None:
    server = HttpServer(HttpSettings(port=0), Metrics(), FixedHealth())
    assert ask(server, "/livez")[0] == 200
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/livez")
    HttpServer(HttpSettings(port=server.port), Metrics(), FixedHealth()).close()


def test_a_scrape_does_not_wait_for_a_request_body(server: HttpServer) -> None:
    """A client may announce a body and never send it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        received = b""
        while b"streamlabel_state" not in received:
            part = client.recv(65_536)
            assert part, received
            received += part
    assert received.startswith(b"HTTP/1.1 200 OK")
