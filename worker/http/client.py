"""Reads a worker's event stream: one snapshot a second, as the live page gets them.

Owns: one connection to the worker.
Thread: main, which blocks in it.
Must not import: kafka, torch.
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
from worker.errors import ArgumentsError, StreamlabelError
from worker.settings import HttpSettings

Snapshot = dict[str, Any]

_LOOPBACK: Final = "127.0.0.1"
_EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
_SILENCE: Final = 5.0  # seconds without a snapshot; one comes every second
_MAX_MESSAGE: Final = 300  # characters quoted of a server's answer
_MAX_LINE: Final = 4_000_000  # bytes: five minutes of charts take a tenth of that


class WatchError(StreamlabelError):
    """No worker answers there, or it has stopped answering; the message says what to check."""


def address_of(settings: HttpSettings) -> str:
    """Return the address at which a worker with these settings answers on this machine.

    Raises:
        ArgumentsError: `http.port` is 0.
    """
    if not settings.port:
        raise ArgumentsError(
            "http.port = 0 picks a free port: name the address that the worker's log has"
        )
    host = _LOOPBACK if settings.host in _EVERYWHERE else settings.host
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def snapshots(url: str, token: str = "") -> Iterator[Snapshot]:
    """Yield the worker's snapshots, from now on.

    Args:
        url: the worker's address.
        token: its `http.token`.

    Raises:
        ArgumentsError: `url` is not an address.
        WatchError: no worker answers there, another server does, or the worker has stopped.
    """
    connection = _connection(url)
    headers = {"Accept": "text/event-stream"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    with closing(connection):
        try:
            connection.request("GET", "/events", headers=headers)
            response = connection.getresponse()
            _check(response, url)
            for snapshot in _events(response):
                yield snapshot
                connection.stream.extend_deadline()
        except TimeoutError as error:
            raise WatchError(f"{url} has sent no snapshot for {_SILENCE:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            reason = excerpt(str(error), _MAX_MESSAGE) or type(error).__name__
            raise WatchError(
                f"{url} does not answer ({reason}): does a worker run there, with http.enabled and "
                "this http.port?"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise WatchError(f"{url} does not answer as a streamlabel worker does") from error
    raise WatchError(f"{url} closed the connection: the worker is stopping, or has stopped")


class _Stream(io.RawIOBase):
    """Reads a socket's bytes until a deadline, however slowly they arrive."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._clock = sock, SystemClock()
        self._bytes = sock.makefile("rb", buffering=0)
        self.extend_deadline()

    def extend_deadline(self) -> None:
        """Set the deadline to `_SILENCE` seconds from now."""
        self._deadline = self._clock.monotonic() + _SILENCE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._deadline - self._clock.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining)
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _WatchConnection(http.client.HTTPConnection):
    """Reads its responses through `stream`."""

    stream: _Stream

    def response_class(  # type: ignore[override]
        self, sock: socket.socket, **options: Any
    ) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, **options)
        response.fp.close()
        self.stream = _Stream(sock)
        response.fp = io.BufferedReader(self.stream)
        return response


def _connection(url: str) -> _WatchConnection:
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        host, port = "", None
    if not host or port == 0 or parts.scheme != "http":
        raise ArgumentsError(
            f"{url!r} is not a worker's address: give one like http://127.0.0.1:9100"
        )
    return _WatchConnection(host, port or 9100, timeout=_SILENCE)


def _check(response: http.client.HTTPResponse, url: str) -> None:
    if response.status != http.HTTPStatus.OK:
        message = response.read(_MAX_MESSAGE).decode("utf-8", "replace").strip()
        raise WatchError(f"{url} refuses: {response.status} {excerpt(message, _MAX_MESSAGE)}")
    if response.headers.get_content_type() != "text/event-stream":
        raise WatchError(
            f"{url} is not a streamlabel worker, or an older version without a live page"
        )


def _events(response: http.client.HTTPResponse) -> Iterator[Snapshot]:
    event = ""
    while line := response.readline(_MAX_LINE):
        field, _, value = line.decode().rstrip("\r\n").partition(": ")
        if field == "event":
            event = value
        elif field == "data" and event == "snapshot":
            yield json.loads(value)
