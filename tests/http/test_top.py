"""`streamlabel top`: the page's picture in a terminal, and nothing foreign that steers it."""

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

from tests.support.sites import Site
from tests.support.workers import clock, free_port, wait_until
from worker.cli import top as command
from worker.errors import SettingsError
from worker.http import client as top_stream
from worker.http.client import Unwatchable, pictures
from worker.http.terminal import line, screen
from worker.settings import child_environment

HOSTILE = (
    "<b>[red]bold[/red]</b> \x1b[2J\x1b]0;owned\x07 \u202edlrow\u202c \x9b31m " + "x" * 1_000_000
)


@pytest.fixture
def site() -> Iterator[Site]:
    with closing(Site()) as site:
        yield site


def picture(site: Site) -> dict[str, Any]:
    shown = next(pictures(f"http://127.0.0.1:{site.server.port}"))
    return shown | {"history": [1.0, None, 3.0]}


def printed(shown: dict[str, Any], width: int = 120, gone: str = "") -> str:
    """As plain text: what it takes to colour it is left out."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(screen(shown, width, gone))
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
def test_the_picture_fits_and_has_the_numbers_of_metrics(site: Site, width: int) -> None:
    for _ in range(3):
        site.label("a fine day", "another one")
    site.metrics.offset_lag.labels("texts.in", "3").set(1234)
    found = printed(picture(site), width)
    assert max(map(len, found.splitlines())) <= width
    for told in (
        "6 labelled",
        "1,234",
        "POSITIVE",
        "texts.in 3",
        "90.0%",
        "a fine day",
        "starting",
    ):
        assert told in found, found


def test_hostile_texts_are_shown_and_not_obeyed(site: Site) -> None:
    site.label(HOSTILE, label="[blink]\x1b[31mLABEL")
    found = printed(picture(site))
    assert "[red]bold[/red]" in found
    assert "[U+001B]" in found
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(found)
    assert len(found) < 20_000


def test_a_shift_is_said(site: Site) -> None:
    site.label("hi")
    site.metrics.label_drift.set(0.7)
    site.metrics.confidence_drift.set(0.02)
    found = printed(picture(site))
    assert "drift: label 0.70 shifted confidence 0.02 stable" in found


def test_once_prints_one_picture_and_ends(site: Site) -> None:
    site.label("hi")
    done = top(site, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 labelled" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_pipe_gets_a_line_a_second_and_is_told_when_the_worker_goes(site: Site) -> None:
    site.label("hi")
    program = [sys.executable, "-P", "-m", "worker", "top", f"127.0.0.1:{site.server.port}"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, env=child_environment()
    ) as process:
        try:
            assert process.stdout
            assert "1 labelled" in process.stdout.readline()
            site.close()
            told = ""
            while "trying again" not in told:
                told = process.stdout.readline()
            assert f"127.0.0.1:{site.server.port}" in told
        finally:
            process.kill()


def test_a_worker_with_a_token_is_watched_by_who_has_it(tmp_path: Path) -> None:
    token, file = "a-token-of-32-letters-0123456789", tmp_path / "token"
    file.write_text(f"{token}\n")
    with closing(Site(token=token)) as site:
        site.label("hi")
        refused = top(site, "--once")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "refuses: 401 give http.token" in refused.stderr
        done = top(site, "--once", STREAMLABEL_HTTP_TOKEN_FILE=str(file))
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 labelled" in done.stdout


def test_nobody_there_is_told_with_what_to_look_at() -> None:
    done = top(free_port(), "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does a worker run there, with http.enabled and this http.port?" in done.stderr
    assert "Traceback" not in done.stderr


class Stranger(BaseHTTPRequestHandler):
    """A server that is no worker's."""

    body, kind = b"<html>hello</html>", "text/html"

    def do_GET(self) -> None:
        self.send_response(200 if self.kind else 403)
        self.send_header("Content-Type", self.kind)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def stranger(body: bytes, kind: str) -> Iterator[str]:
    handler = type("Handler", (Stranger,), {"body": body, "kind": kind})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"<html>hello</html>", "text/html", "no streamlabel worker"),
        (b"event: picture\ndata: nonsense\n\n", "text/event-stream", "not as a streamlabel worker"),
        (b"event: picture\ndata: " + b"[" * 100_000, "text/event-stream", "not as a streamlabel"),
        (b"event: picture\ndata: " + b"x" * 9_000_000, "text/event-stream", "not as a streamlabel"),
        (b"", "text/event-stream", "ended the connection"),
        (b"\x1b[2J go away", "", r"403 \[U\+001B\]\[2J go away"),
    ],
)
def test_a_stranger_is_named(body: bytes, kind: str, words: str) -> None:
    with stranger(body, kind) as url, pytest.raises(Unwatchable, match=words):
        list(pictures(url))


class Talker(BaseRequestHandler):
    """Says something over and over, for a few seconds, to whoever connects."""

    head, words = b"", b""

    def handle(self) -> None:
        until = clock.monotonic() + 5
        with contextlib.suppress(OSError):
            self.request.recv(10_000)
            self.request.sendall(self.head)
            while clock.monotonic() < until:
                self.request.sendall(self.words)
                clock.sleep(0.02)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (STREAM, b"x"),
        (STREAM, b": I am here\n\n"),
        (STREAM, b"event: history\ndata: []\n\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", b"a"),
        (STREAM.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), b"1\r\nx\r\n"),
    ],
    ids=["no line", "comments", "no picture", "100", "no head", "no refusal", "chunks"],
)
def test_a_stranger_that_talks_and_shows_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, head: bytes, words: bytes
) -> None:
    """Each byte alone comes in time."""
    monkeypatch.setattr(top_stream, "_SILENCE", 0.5)
    handler = type("Handler", (Talker,), {"head": head, "words": words})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(Unwatchable, match=r"has shown nothing for 0\.5 s"):
                list(pictures(f"http://127.0.0.1:{server.server_address[1]}"))
        finally:
            server.shutdown()


ODD: tuple[Any, ...] = (
    *(None, True, -1, -1e308, 1e400, float("nan"), 10**4000, "x", "\x1b[2J\ud800", "x" * 100_000),
    *([], {}, [[]], [{}], {"x": []}, {"x": "y"}, ["x"]),
)


def altered(node: Any) -> Iterator[Any]:
    """The same picture with each part in turn replaced by each odd value."""
    yield from ODD
    pairs = list(node.items() if isinstance(node, dict) else enumerate(node))
    for key, part in pairs if isinstance(node, dict | list) else ():
        for other in altered(part) if isinstance(part, dict | list) else ODD:
            copy: Any = dict(node) if isinstance(node, dict) else list(node)
            copy[key] = other
            yield copy


def test_whatever_a_picture_holds_it_is_shown_or_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.label("a fine day")
    site.metrics.offset_lag.labels("texts.in", "3").set(1234)
    found, refused = next(pictures(f"http://127.0.0.1:{site.server.port}")), 0
    one_of_each = found | {"posts": found["posts"][:1], "stages": found["stages"][:1]}

    def show(shown: dict[str, Any], gone: str) -> None:
        out = printed(shown, 80, gone)
        assert "\x1b" not in out + line(shown)

    for picture in altered(one_of_each):
        monkeypatch.setattr(top_stream, "pictures", lambda *_, of=picture: iter([of]))
        try:
            command._watch("http://there", "", show, once=True)
        except Unwatchable:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("picture", [b"[1]", b"{}", b'{"texts_per_second": 1}'])
def test_a_picture_of_another_version_is_told_without_a_stack(picture: bytes) -> None:
    body = b"event: picture\ndata: " + picture + b"\n\n"
    with stranger(body, "text/event-stream") as url:
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
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"http://127\.0\.0\.1:9100"):
        list(pictures(url))


def test_a_line_says_what_matters(site: Site) -> None:
    site.label("hi")
    shown: dict[str, Any] = {}

    def counted() -> bool:
        shown.update(picture(site))
        return shown["totals"]["published"] == 1

    wait_until(counted, what="it is counted")
    assert line(shown).endswith("1 labelled, 0 dead letters, starting")
