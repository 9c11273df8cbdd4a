"""A worker's pictures, one a second, as its page gets them.

Owns one connection. Runs on: the main thread, which waits in it. Must not import: kafka, torch.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit

from worker.clock import SystemClock
from worker.core.visible import excerpt
from worker.errors import SettingsError, StreamlabelError

Shown = dict[str, Any]

_SILENCE: Final = 5.0  # seconds without a picture; one comes every second
_WORDS: Final = 300  # of another's message; nothing in it steers the terminal
_LONGEST: Final = 4_000_000  # bytes of a line: five minutes of charts are a tenth of that


class Unwatchable(StreamlabelError):
    """There is no worker to be watched, or no more; the message says what to look at."""


def pictures(url: str, token: str = "") -> Iterator[Shown]:
    """What the worker shows, from now on.

    Args:
        url: the worker's address.
        token: its `http.token`.

    Raises:
        SettingsError: that is no address.
        Unwatchable: nobody answers there, or somebody else; or the worker has gone.
    """
    connection = _connection(url)
    headers = {"Accept": "text/event-stream"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    with closing(connection):
        try:
            connection.request("GET", "/events", headers=headers)
            answer = connection.getresponse()
            _check(answer, url)
            for picture in _events(answer):
                yield picture
                connection.stream.prolong()
        except TimeoutError as error:
            raise Unwatchable(f"{url} has shown nothing for {_SILENCE:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            why = excerpt(str(error), _WORDS) or type(error).__name__
            told = f"{url} does not answer ({why})"
            raise Unwatchable(
                f"{told}: does a worker run there, with http.enabled and this http.port?"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unwatchable(f"{url} speaks, but not as a streamlabel worker does") from error
    raise Unwatchable(f"{url} has ended the connection: the worker stops, or was stopped")


class _Stream(io.RawIOBase):
    """A socket's bytes until a deadline, however slowly they drip in."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._clock = sock, SystemClock()
        self._bytes = sock.makefile("rb", buffering=0)
        self.prolong()

    def prolong(self) -> None:
        """As long again, from now."""
        self._deadline = self._clock.monotonic() + _SILENCE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Connection(http.client.HTTPConnection):
    """Its answers are read through `stream`."""

    stream: _Stream

    def response_class(  # type: ignore[override]
        self, sock: socket.socket, **known: Any
    ) -> http.client.HTTPResponse:
        answer = http.client.HTTPResponse(sock, **known)
        answer.fp.close()
        self.stream = _Stream(sock)
        answer.fp = io.BufferedReader(self.stream)
        return answer


def _connection(url: str) -> _Connection:
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        host, port = "", None
    if not host or port == 0 or parts.scheme != "http":
        raise SettingsError(f"{url!r} is no worker's address: give one like http://127.0.0.1:9100")
    return _Connection(host, port or 9100, timeout=_SILENCE)


def _check(answer: http.client.HTTPResponse, url: str) -> None:
    if answer.status != http.HTTPStatus.OK:
        words = answer.read(_WORDS).decode("utf-8", "replace").strip()
        raise Unwatchable(f"{url} refuses: {answer.status} {excerpt(words, _WORDS)}")
    if answer.headers.get_content_type() != "text/event-stream":
        raise Unwatchable(f"{url} is no streamlabel worker, or an older one without a page")


def _events(answer: http.client.HTTPResponse) -> Iterator[Shown]:
    name = ""
    while line := answer.readline(_LONGEST):
        field, _, value = line.decode().rstrip("\r\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data" and name == "picture":
            yield json.loads(value)
