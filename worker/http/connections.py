"""Accepts connections up to a limit, and closes the oldest idle one for a new one.

Owns: accepting on the listening socket.
Thread: http, on the event loop; `raise_file_limit` on main, at start.
Must not import: kafka, torch, worker.runtime.

The libraries' own ways do not hold under a flood. When files run out, asyncio logs a stack trace
for each failed accept and schedules as many retries: megabytes of log a second. uvicorn's limit
keeps each connection above it open to answer 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

from worker.logs import get_logger

log = get_logger(__name__)

MAX_CONNECTIONS: Final = 256
_BACKLOG: Final = 64  # connections that the kernel queues until they are accepted
_FILE_SHARE: Final = 4  # connections take at most a quarter of the open files
_RETRY_DELAY: Final = 1.0  # seconds until the next accept after one failed
_LOG_INTERVAL: Final = 60.0  # seconds between two log lines about failed accepts
_MAX_OPEN_FILES: Final = 65_536  # the worker has no use for more


class Connection(Protocol):
    """An open connection."""

    number: int

    @property
    def answering(self) -> bool:
        """True from a complete request until its response is complete."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class ConnectionLimiter:
    """Accepts connections; at the limit, closes the oldest idle one for a new one.

    Args:
        listening: a bound socket.
        limit: connections open at a time.
        make: makes the protocol of a new connection.
        open_connections: the open connections; each adds and removes itself.
    """

    def __init__(
        self,
        listening: socket.socket,
        limit: int,
        make: Callable[[], Connection],
        open_connections: set[Connection],
    ) -> None:
        self._socket, self._limit = listening, limit
        self._make, self._open = make, open_connections
        self._connecting: dict[Connection, asyncio.Task[None]] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._quiet_until = 0.0

    def start(self) -> None:
        """Begin to accept connections. On the event loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        self._socket.listen(_BACKLOG)
        self._watch()

    def close(self) -> None:
        """Stop accepting, and close the listening socket."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _watch(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # the client has left already
        except OSError as error:
            self._pause(error)
            return
        if len(self._open | self._connecting.keys()) >= self._limit and not self._evict_oldest():
            accepted.close()
            return
        accepted.setblocking(False)
        connection = self._make()
        self._connecting[connection] = self._loop.create_task(self._connect(connection, accepted))

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        protocol = cast("asyncio.Protocol", connection)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted)
        except OSError:
            accepted.close()
        finally:
            del self._connecting[connection]

    def _evict_oldest(self) -> bool:
        """Close the oldest idle connection; return False if there is none."""
        idle = [connection for connection in self._open if not connection.answering]
        if idle:
            min(idle, key=lambda connection: connection.number).abort()
        return bool(idle)

    def _pause(self, error: OSError) -> None:
        """Stop accepting for a moment: the process is out of files or memory. Log at intervals."""
        self._loop.remove_reader(self._socket)
        self._retry = self._loop.call_later(_RETRY_DELAY, self._watch)
        self._evict_oldest()
        now = self._loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL
            log.warning(
                "cannot accept connections on http.port; logged once a minute at most",
                reason=str(error),
                connections=len(self._open),
            )


def connection_limit() -> int:
    """Return 256, or a quarter of the files this process may open: Kafka needs some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft < 0 else max(1, min(MAX_CONNECTIONS, soft // _FILE_SHARE))


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the system allows, up to 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if hard < 0 else min(_MAX_OPEN_FILES, hard)
    if 0 <= soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
