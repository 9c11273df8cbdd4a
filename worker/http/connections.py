"""The door of the worker's HTTP: which connections come in, and how many stay.

Owns the listening socket. Runs on the HTTP thread's loop, but for `raise_file_limit`, which the main
thread calls at start. Imports the ground floor.

asyncio's own accepting logs a stack for each try where files run out, and schedules as many more:
megabytes a second. uvicorn's bound keeps a connection to tell it that it is one too many.
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

CONNECTIONS: Final = 256
_QUEUED: Final = 64  # connections that the kernel keeps until they are taken
_SHARE: Final = 4  # of the files that may be open, a quarter is for connections
_REST: Final = 1.0  # seconds until the next try where none could be taken
_QUIET: Final = 60.0  # seconds between two lines that say so
_FILES: Final = 65_536  # no use for more


class Connection(Protocol):
    """One that was let in."""

    number: int

    @property
    def answering(self) -> bool:
        """It has asked, and its answer is not complete."""
        ...

    def put_out(self) -> None:
        """Close it at once."""
        ...


class ConnectionLimiter:
    """Takes connections, the newest before the oldest that asks nothing.

    Args:
        listening: bound, and listening.
        most: connections at a time.
        make: makes what talks to one.
        inside: those that are open; each adds and removes itself.
    """

    def __init__(
        self,
        listening: socket.socket,
        most: int,
        make: Callable[[], Connection],
        inside: set[Connection],
    ) -> None:
        self._socket, self._most = listening, most
        self._make, self._inside = make, inside
        self._entering: dict[Connection, asyncio.Task[None]] = {}
        self._again: asyncio.TimerHandle | None = None
        self._silent_until = 0.0

    def open(self) -> None:
        """Begin to take connections. On the loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        self._socket.listen(_QUEUED)
        self._watch()

    def close(self) -> None:
        """Take no more."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _watch(self) -> None:
        self._loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        try:
            taken, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it has left already
        except OSError as error:
            self._rest(error)
            return
        if len(self._inside | self._entering.keys()) >= self._most and not self._made_room():
            taken.close()
            return
        taken.setblocking(False)
        connection = self._make()
        self._entering[connection] = self._loop.create_task(self._let_in(connection, taken))

    async def _let_in(self, connection: Connection, taken: socket.socket) -> None:
        protocol = cast("asyncio.Protocol", connection)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, taken)
        except OSError:
            taken.close()
        finally:
            del self._entering[connection]

    def _made_room(self) -> bool:
        idle = [one for one in self._inside if not one.answering]
        if idle:
            min(idle, key=lambda one: one.number).put_out()
        return bool(idle)

    def _rest(self, error: OSError) -> None:
        """No file is left, or no memory: try again in a while, and say so now and then."""
        self._loop.remove_reader(self._socket)
        self._again = self._loop.call_later(_REST, self._watch)
        self._made_room()
        now = self._loop.time()
        if now >= self._silent_until:
            self._silent_until = now + _QUIET
            log.warning(
                "a connection to http.port can't be taken; more such lines are left out for a minute",
                reason=str(error),
                connections=len(self._inside),
            )


def most_connections() -> int:
    """256, or less where this process may open few files: Kafka's connections need some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft < 0 else max(1, min(CONNECTIONS, soft // _SHARE))


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the system allows, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard < 0 else min(_FILES, hard)
    if 0 <= soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
