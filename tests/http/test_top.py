"""`streamlabel top` shows the page's figures in a terminal; no text can control the terminal."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest
from rich.console import Console

from tests.support import snapshots
from tests.support.ports import free_port
from tests.support.sites import Site
from tests.support.workers import clock
from worker.cli import top as top_module
from worker.errors import SettingsError
from worker.http import client as client_module
from worker.http.client import WatchError
from worker.http.client import snapshots as stream_of
from worker.http.terminal import line, screen
from worker.settings import child_environment

HOSTILE = (
    "<b>[red]bold[/red]</b> \x1b[2J\x1b]0;owned\x07 \u202edlrow\u202c \x9b31m " + "x" * 1_000_000
)


@pytest.fixture
def site() -> Iterator[Site]:
    with closing(Site()) as site:
        yield site


def snapshot_of(site: Site, token: str = "") -> dict[str, Any]:
    """Return the second snapshot, which is of a reading that was taken after the call."""
    stream = stream_of(f"http://127.0.0.1:{site.server.port}", token)
    next(stream)
    return next(stream)


def label_one(site: Site, token: str = "") -> None:
    """Label a text and wait for a reading: a program that starts within a second finds it."""
    site.label("hi")
    assert snapshot_of(site, token)["totals"]["published"] == 1


def printed(snapshot: dict[str, Any], width: int = 120, failure: str = "") -> str:
    """Render the screen as plain text, without colour codes."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(screen(snapshot, width, failure))
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def top(site: Site | int, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    port = site if isinstance(site, int) else site.server.port
    program = [sys.executable, "-P", "-m", "worker", "top", f"http://127.0.0.1:{port}", *more]
    return subprocess.run(
        program,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=child_environment(**variables),
    )


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_screen_fits_and_has_the_figures_of_the_metrics(site: Site, width: int) -> None:
    for _ in range(3):
        site.label("a fine day", "another one")
    site.metrics.offset_lag.labels("texts.in", "3").set(1234)
    output = printed(snapshot_of(site), width)
    assert max(map(len, output.splitlines())) <= width
    for expected in (
        "6 labelled",
        "1,234",
        "POSITIVE",
        "texts.in 3",
        "90.0%",
        "a fine day",
        "starting",
    ):
        assert expected in output, output


def test_control_characters_are_shown_and_not_sent_to_the_terminal(site: Site) -> None:
    site.label(HOSTILE, label="[blink]\x1b[31mLABEL")
    output = printed(snapshot_of(site))
    assert "[red]bold[/red]" in output
    assert "[U+001B]" in output
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(output)
    assert len(output) < 20_000


def test_several_models_and_routes_have_panels() -> None:
    told = snapshots.of_several_models().snapshot | {"minute": []}
    assert max(map(len, printed(told, 40).splitlines())) <= 40
    output = printed(told)
    assert max(map(len, output.splitlines())) <= 120
    words = " ".join(output.replace("│", " ").split())
    for expected in ("toxicity 47% of the time", "98,211 records", "314,134 not applicable"):
        assert expected in words
    for expected in ("not_toxic 40.8%", "filtered: route spam", "sentiment: POSITIVE", "angry"):
        assert expected in words
    assert "41 <0.1%" in words, "of 412,000 records"
    assert "copies lost: 2" in words


def test_a_share_of_no_results_is_not_shown() -> None:
    told = snapshots.of_several_models().snapshot | {"minute": []}
    told["routes"] = snapshots.no_route_taken()
    output = printed(told)
    assert "no result routed yet" in output
    assert "angry" not in output


def test_one_model_without_routes_has_no_such_panels() -> None:
    told = snapshots.Told().snapshot | {"minute": []}
    told["routes"] = snapshots.routes() | {"lost": 0, "path_missing": 0}
    assert "copies lost" not in printed(told)
    del told["routes"], told["each_model"]
    output = printed(told)
    assert "several models" not in output
    assert "routes" not in output


def test_decided_and_uncertain_labels_are_shown() -> None:
    told = snapshots.with_decisions().snapshot | {"minute": []}
    told["posts"] = told["posts"][:3]
    del told["posts"][1]["decided"]
    told["posts"][1]["label"] = "UNCERTAIN"
    told["posts"].append({"id": "texts.in/0/1", "at": 0, "reason": "not_json"})
    output = printed(told)
    assert "not_json" in output
    assert "none" in output
    assert "UNCERTAIN" in output
    assert "disapproval, disgust" in output


def test_drift_is_shown(site: Site) -> None:
    site.label("hi")
    site.metrics.label_drift.set(0.7)
    site.metrics.confidence_drift.set(0.02)
    output = printed(snapshot_of(site))
    assert "drift: label 0.70 shifted confidence 0.02 stable" in output


def test_once_prints_one_screen_and_exits(site: Site) -> None:
    label_one(site)
    done = top(site, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 labelled" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_pipe_gets_a_line_a_second_and_a_line_when_the_worker_stops(site: Site) -> None:
    label_one(site)
    program = [sys.executable, "-P", "-m", "worker", "top", f"127.0.0.1:{site.server.port}"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, env=child_environment()
    ) as process:
        try:
            assert process.stdout
            assert "1 labelled" in process.stdout.readline()
            site.close()
            line = ""
            while "trying again" not in line:
                line = process.stdout.readline()
            assert f"127.0.0.1:{site.server.port}" in line
        finally:
            process.kill()


def test_a_worker_with_a_token_is_shown_to_holders_of_the_token(tmp_path: Path) -> None:
    token, file = "a-token-of-32-letters-0123456789", tmp_path / "token"
    file.write_text(f"{token}\n")
    with closing(Site(token=token)) as site:
        label_one(site, token)
        refused = top(site, "--once")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "refuses: 401 send http.token" in refused.stderr
        done = top(site, "--once", STREAMLABEL_HTTP_TOKEN_FILE=str(file))
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 labelled" in done.stdout


def test_the_error_of_a_closed_port_says_what_to_check() -> None:
    done = top(free_port(), "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does a worker run there, with http.enabled and this http.port?" in done.stderr
    assert "Traceback" not in done.stderr


class OtherHandler(BaseHTTPRequestHandler):
    """Answers as a server that is not a worker."""

    body, kind = b"<html>hello</html>", "text/html"

    def do_GET(self) -> None:
        self.send_response(200 if self.kind else 403)
        self.send_header("Content-Type", self.kind)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def other_server(body: bytes, kind: str) -> Iterator[str]:
    handler = type("Handler", (OtherHandler,), {"body": body, "kind": kind})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"<html>hello</html>", "text/html", "not a streamlabel worker"),
        (
            b"event: snapshot\ndata: nonsense\n\n",
            "text/event-stream",
            "not answer as a streamlabel worker",
        ),
        (
            b"event: snapshot\ndata: " + b"[" * 100_000,
            "text/event-stream",
            "not answer as a streamlabel",
        ),
        (
            b"event: snapshot\ndata: " + b"x" * 9_000_000,
            "text/event-stream",
            "not answer as a streamlabel",
        ),
        (b"", "text/event-stream", "closed the connection"),
        (b"\x1b[2J go away", "", r"403 \[U\+001B\]\[2J go away"),
    ],
)
def test_the_error_of_another_server_says_so(body: bytes, kind: str, message: str) -> None:
    with other_server(body, kind) as url, pytest.raises(WatchError, match=message):
        list(stream_of(url))


class RepeatingHandler(BaseRequestHandler):
    """Sends the same bytes over and over, for a few seconds, to every client."""

    head, chunk = b"", b""

    def handle(self) -> None:
        until = clock.monotonic() + 5
        with contextlib.suppress(OSError):
            self.request.recv(10_000)
            self.request.sendall(self.head)
            while clock.monotonic() < until:
                self.request.sendall(self.chunk)
                clock.sleep(0.02)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (STREAM, b"x"),
        (STREAM, b": I am here\n\n"),
        (STREAM, b"event: history\ndata: []\n\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", b"a"),
        (STREAM.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), b"1\r\nx\r\n"),
    ],
    ids=["no line", "comments", "no snapshot", "100", "no head", "no error body", "chunks"],
)
def test_a_server_that_sends_bytes_but_no_snapshot_times_out(
    monkeypatch: pytest.MonkeyPatch, head: bytes, chunk: bytes
) -> None:
    """Even though each byte alone arrives in time."""
    monkeypatch.setattr(client_module, "_SILENCE", 0.5)
    handler = type("Handler", (RepeatingHandler,), {"head": head, "chunk": chunk})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(WatchError, match=r"has sent no snapshot for 0\.5 s"):
                list(stream_of(f"http://127.0.0.1:{server.server_address[1]}"))
        finally:
            server.shutdown()


ODD: tuple[Any, ...] = (
    *(None, True, -1, -1e308, 1e400, float("nan"), 10**4000, "x", "\x1b[2J\ud800", "x" * 100_000),
    *([], {}, [[]], [{}], {"x": []}, {"x": "y"}, ["x"]),
)


def altered(node: Any) -> Iterator[Any]:
    """Yield the snapshot with each part in turn replaced by each odd value."""
    yield from ODD
    pairs = list(node.items() if isinstance(node, dict) else enumerate(node))
    for key, part in pairs if isinstance(node, dict | list) else ():
        for other in altered(part) if isinstance(part, dict | list) else ODD:
            copy: Any = dict(node) if isinstance(node, dict) else list(node)
            copy[key] = other
            yield copy


def test_a_snapshot_with_odd_values_is_shown_or_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.label("a fine day")
    site.metrics.offset_lag.labels("texts.in", "3").set(1234)
    snapshot, refused = next(stream_of(f"http://127.0.0.1:{site.server.port}")), 0
    lists = ("posts", "stages", "settings", "confidence", "minute")
    smallest = snapshot | {name: snapshot[name][:1] for name in lists}

    def show(shown: dict[str, Any], failure: str) -> None:
        output = printed(shown, 80, failure)
        assert "\x1b" not in output + line(shown)

    for changed in altered(smallest):
        monkeypatch.setattr(client_module, "snapshots", lambda *_, only=changed: iter([only]))
        try:
            top_module._watch("http://there", "", show, once=True)
        except WatchError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("snapshot", [b"[1]", b"{}", b'{"texts_per_second": 1}'])
def test_a_snapshot_of_another_version_is_refused_without_a_stack_trace(snapshot: bytes) -> None:
    body = b"event: snapshot\ndata: " + snapshot + b"\n\n"
    with other_server(body, "text/event-stream") as url:
        done = top(int(url.rpartition(":")[2]), "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert "sends a snapshot that this version can't read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "http://host:port",
        "http://",
        "http://host:0",
        "host:65536",
        "http://a..b",
        "x" * 99,
    ],
)
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"http://127\.0\.0\.1:9100"):
        list(stream_of(url))


def test_a_line_has_the_main_figures(site: Site) -> None:
    label_one(site)
    assert line(snapshot_of(site)).endswith("1 labelled, 0 dead letters, starting")
