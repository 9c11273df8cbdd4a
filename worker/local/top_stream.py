"""A worker's pictures, one a second, as its page gets them.

Owns one connection. Runs on: the main thread, which waits in it. Must not import: kafka, torch.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit

from worker.core.visible import excerpt
from worker.errors import SettingsError, StreamlabelError

Shown = dict[str, Any]

_SILENCE: Final = 5.0  # seconds; a picture comes every one
_WORDS: Final = 300  # of another's message; nothing in it steers the terminal
_LONGEST: Final = 4_000_000  # bytes of a line: five minutes of charts are a tenth of that


class Unwatchable(StreamlabelError):
    """There is no worker to be watched, or no more; the message says what to look at."""


def pictures(url: str) -> Iterator[Shown]:
    """What the worker shows, from now on.

    Raises:
        SettingsError: that is no address.
        Unwatchable: nobody answers there, or somebody else; or the worker has gone.
    """
    connection = _connection(url)
    with closing(connection):
        try:
            connection.request("GET", "/events", headers={"Accept": "text/event-stream"})
            answer = connection.getresponse()
            _check(answer, url)
            yield from _events(answer)
        except TimeoutError as error:
            raise Unwatchable(f"{url} has been silent for {_SILENCE:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            why = excerpt(str(error), _WORDS) or type(error).__name__
            told = f"{url} does not answer ({why})"
            raise Unwatchable(
                f"{told}: does a worker run there, with http.enabled and this http.port?"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Unwatchable(f"{url} speaks, but not as a streamlabel worker does") from error
    raise Unwatchable(f"{url} has ended the connection: the worker stops, or was stopped")


def _connection(url: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http":
        raise SettingsError(f"{url!r} is no worker's address: give one like http://127.0.0.1:9100")
    return http.client.HTTPConnection(host, port or 9100, timeout=_SILENCE)


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
