"""The page over HTTP: safe headers, one snapshot for all readers, no requests from other sites."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.support.sites import JSON, Site
from tests.support.workers import clock, wait_until
from worker.http import classify
from worker.http import events as events_module
from worker.http import server as server_module
from worker.http.classify import MAX_CHARACTERS
from worker.http.files import page_files
from worker.http.guard import is_foreign_host, is_foreign_site

LIBRARY = ("/uPlot.iife.min.js", "/uPlot.min.css", "/icon.svg")
FILES = ("/", *sorted(page_files().keys() - {"/", *LIBRARY}))


@pytest.fixture
def site() -> Iterator[Site]:
    with closing(Site()) as site:
        site.load_model()
        yield site


def frames(answer: http.client.HTTPResponse, number: int) -> list[tuple[str, Any]]:
    """Return the next events, each with its name."""
    events: list[tuple[str, Any]] = []
    name = ""
    while len(events) < number:
        field, _, value = answer.readline().decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            events.append((name, json.loads(value)))
    return events


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*FILES, *LIBRARY, "/events", "/history"])
def test_every_answer_has_safe_headers(site: Site, path: str) -> None:
    status, headers, _ = site.ask(path, "HEAD")
    assert status == 200
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_the_page_is_small_and_names_no_other_host(site: Site) -> None:
    bodies = {path: site.ask(path)[2] for path in (*FILES, *LIBRARY)}
    assert sum(map(len, bodies.values())) < 200_000
    for path in FILES:
        assert b"//" not in bodies[path].replace(b"// ", b""), f"{path} names a host"
        assert b"innerHTML" not in bodies[path]
    assert b"<style" not in bodies["/"]
    assert b" style=" not in bodies["/"]
    assert b"onclick" not in bodies["/"]


@pytest.mark.parametrize("path", ["/", "/events", "/history", "/page.js"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_page_is_read_only(site: Site, path: str, method: str) -> None:
    assert site.ask(path, method)[0] == 405
    assert site.ask("/classify")[0] == 405


def test_files_beside_the_page_are_not_served(site: Site) -> None:
    for path in ("/__init__.py", "/../http/routes.py", "/page.html", "/%2e%2e/errors.py"):
        assert site.ask(path)[0] == 404


# -- events --------------------------------------------------------------------------------------


def test_a_reader_gets_a_snapshot_at_once_and_then_one_a_second(site: Site) -> None:
    with site.watching() as answer:
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        (first, snapshot), (_, later) = frames(answer, 2)
        assert first == "snapshot"
        assert later["at"] - snapshot["at"] < 3000
        site.metrics.published.inc(7)
        wait_until(lambda: frames(answer, 1)[0][1]["totals"]["published"] == 7, 10, "it is shown")


def test_history_is_kept_without_readers_and_no_snapshot_is_built(site: Site) -> None:
    before = site.metrics.reads
    site.label("one", "two", "three")
    points = lambda: site.json("/history?range=5m")["points"]  # noqa: E731
    wait_until(lambda: len(points()) >= 3, 20, "three readings")
    assert site.metrics.reads - before >= 2
    assert sum(point["labelled"] for point in points()) > 0
    assert site.server._app.events._newest == b""


@pytest.mark.parametrize("query", ["range=2d", "range=5m&range=x", "range=%ff"])
def test_an_unknown_range_is_refused(site: Site, query: str) -> None:
    status, _, body = site.ask(f"/history?{query}")
    assert (status, body) == (400, b"range must be one of 5m, 1h, 24h\n")
    assert site.json("/history")["range"] == "5m"


def test_a_hundred_readers_cost_one_snapshot_a_second(site: Site) -> None:
    with ExitStack() as stack:
        answers = [stack.enter_context(site.watching()) for _ in range(100)]
        with ThreadPoolExecutor(10) as pool:
            began, before = clock.monotonic(), site.metrics.reads
            for shown in pool.map(lambda answer: frames(answer, 3), answers):
                assert [name for name, _ in shown] == ["snapshot"] * 3
            seconds = clock.monotonic() - began
        assert site.metrics.reads - before <= seconds + 2
        assert site.ask("/livez")[0] == 200


def test_stuck_readers_do_not_delay_others(site: Site) -> None:
    """No snapshots are queued for them: a reader's socket bounds its backlog."""
    stuck = []
    for _ in range(20):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.connect(("127.0.0.1", site.server.port))
        raw.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stuck.append(raw)
    site.metrics.model.info({"model": "x" * 60_000})  # one snapshot fills a socket's buffer
    try:
        wait_until(lambda: site.server._app.events._readers == 20, 10, "all are connected")
        with site.watching() as answer:
            frames(answer, 2)
            began = clock.monotonic()
            frames(answer, 3)
            assert clock.monotonic() - began < 20
    finally:
        for raw in stuck:
            raw.close()
    wait_until(lambda: site.server._app.events._readers == 0, 20, "all are dropped")


def test_readers_beyond_the_limit_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_READERS", 2)
    with site.watching() as one, site.watching() as other:
        frames(one, 1), frames(other, 1)
        assert site.ask("/events")[::2] == (503, b"too many pages are open; close one\n")
    wait_until(lambda: site.server._app.events._readers == 0, 10, "both have left")
    with site.watching() as again:
        assert frames(again, 1)[0][0] == "snapshot"


def test_closing_ends_the_streams(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_CLOSE_TIMEOUT", 30)
    with site.watching() as answer:
        frames(answer, 2)
        began = clock.monotonic()
        site.server.close()
        assert clock.monotonic() - began < 20
        answer.read()


# -- classify ------------------------------------------------------------------------------------


def test_a_text_is_classified(site: Site) -> None:
    status, body = site.classify("hello")
    assert status == 200
    answer = json.loads(body)
    assert answer["label"] == "POSITIVE"
    assert answer["scores"] == [["POSITIVE", 0.75], ["NEGATIVE", 0.25]]
    assert (answer["token_count"], answer["truncated"]) == (5, False)
    assert site.model.predicted == [["hello"]]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Host": "elsewhere.example"},
    ],
)
def test_requests_from_another_sites_page_are_refused(site: Site, headers: dict[str, str]) -> None:
    assert site.classify("hello", **headers)[0] == 403
    assert not site.model.predicted


def test_requests_from_the_page_and_from_programs_are_answered(site: Site) -> None:
    own = f"127.0.0.1:{site.server.port}"
    assert site.classify("hello", Sec_Fetch_Site="same-origin")[0] == 200
    assert site.classify("hello", Origin=f"http://{own}")[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_content_types_that_a_form_can_send_are_refused(site: Site, kind: str) -> None:
    assert site.ask("/classify", "POST", '{"text": "hello"}', Content_Type=kind)[0] == 415


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        (
            "x" * (MAX_CHARACTERS + 1),
            413,
            f"text too long: {MAX_CHARACTERS + 1} characters, at most",
        ),
        ("x" * 1_000_000, 413, "text too long: at most"),
        (" \n ", 400, "blank"),
        ("\u200b\u0000", 400, "blank"),
        (17, 400, "send a JSON object"),
        (None, 400, "send a JSON object"),
    ],
)
def test_an_invalid_text_is_refused_with_a_reason(
    site: Site, text: object, status: int, reason: str
) -> None:
    answered, body = site.classify(text)
    assert answered == status
    assert reason in body


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 60_000])
def test_invalid_json_is_refused(site: Site, body: bytes) -> None:
    assert site.ask("/classify", "POST", body, **JSON)[0] == 400


def test_a_text_is_refused_until_the_model_is_ready(site: Site) -> None:
    site.health.verdict = (False, "warming")
    assert site.classify("hello") == (503, "the model is not ready: warming")


def test_one_text_is_classified_at_a_time_within_a_bound(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "ANSWER_TIMEOUT", 3)
    site.held.set()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(site.classify, "first")
        wait_until(lambda: site.server._app._classify._busy, 10, "it is pending")
        assert site.classify("second") == (503, "another text is being classified; try again")
        assert first.result() == (503, "no answer within 3 s: the worker is busy; try again")
    site.held.clear()
    monkeypatch.setattr(classify, "ANSWER_TIMEOUT", 30)
    assert site.classify("third")[0] == 200
    assert site.model.predicted == [["third"]]


def test_an_incomplete_request_times_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "_BODY_TIMEOUT", 0.2)
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=10) as raw:
        raw.sendall(
            b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")


# -- the guard -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "listening", "foreign"),
    [
        ("localhost:9100", "127.0.0.1", False),
        ("127.0.0.1:9100", "127.0.0.1", False),
        ("[::1]:9100", "::1", False),
        ("worker.localhost", "127.0.0.1", False),
        ("elsewhere.example:9100", "127.0.0.1", True),
        ("192.0.2.7:9100", "127.0.0.1", True),
        ("", "127.0.0.1", True),
        ("[", "127.0.0.1", True),
        ("worker:9100", "0.0.0.0", False),
        ("elsewhere.example", "192.0.2.7", False),
    ],
)
def test_only_known_host_names_are_answered(host: str, listening: str, foreign: bool) -> None:
    assert is_foreign_host(host, listening) is foreign


def test_a_request_without_browser_headers_is_from_no_foreign_site() -> None:
    assert not is_foreign_site({})


def test_a_client_that_disconnects_in_mid_request_is_no_error(site: Site) -> None:
    head = "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=10) as asking:
        asking.sendall(f'{head}Content-Length: 40\r\n\r\n{{"text": '.encode())
    assert site.classify("hello")[0] == 200


@pytest.mark.parametrize("record", ["x", 5, ["lang"]])
def test_a_record_that_is_no_object_is_refused(site: Site, record: Any) -> None:
    body = json.dumps({"text": "hi", "record": record})
    status, _, refusal = site.ask(
        "/classify", "POST", body, **{"Content-Type": JSON["Content-Type"]}
    )
    assert status == 400
    assert b"record must be a JSON object" in refusal


def test_a_text_may_have_its_record(site: Site) -> None:
    body = json.dumps({"text": "hi", "record": {"lang": "en"}})
    status, _, answer = site.ask(
        "/classify", "POST", body, **{"Content-Type": JSON["Content-Type"]}
    )
    assert (status, json.loads(answer)["label"]) == (200, "POSITIVE")
