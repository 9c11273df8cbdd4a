"""The worker's face on the network: one listening socket, one daemon thread with its own loop.

What is answered is `page.app`'s business, who comes in is `door`'s; here a server library talks to
each. It never takes signals, writes no access log, and whoever is slow to ask or to read is cut off.
Imports the ground floor, `box`, `door` and `page`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.clock import SystemClock
from worker.errors import SettingsError
from worker.http.ask import AskQueue, SupportsAsk
from worker.http.connections import ConnectionLimiter, most_connections
from worker.http.health import Health
from worker.http.recent_posts import PostSource, RecentPosts
from worker.http.routes import App
from worker.http.snapshot import MetricsSource
from worker.logs import get_logger
from worker.settings import HttpSettings

log = get_logger(__name__)

_PATIENCE: Final = 10.0  # seconds for whoever is connected to ask something
_UNREAD: Final = 30_000  # ms that a reader may leave what was sent without taking it
_GOODBYE: Final = 2.0  # seconds for answers that are under way


class HttpServer:
    """Serves from construction until `close`.

    Args:
        settings: where to listen.
        metrics, health: what is shown.
        posted: the last posts, for the page; None shows none.
        box: whom the page asks about a text; None asks nobody.

    Raises:
        SettingsError: the address can't be had; names the setting.
    """

    def __init__(
        self,
        settings: HttpSettings,
        metrics: MetricsSource,
        health: Health,
        posted: PostSource | None = None,
        box: SupportsAsk | None = None,
    ) -> None:
        try:
            self._socket = _listen(settings.host, settings.port)
        except (OSError, OverflowError, UnicodeError) as error:  # the last: a host of 64 letters
            raise SettingsError(
                f"http.port = {settings.port}: can't listen on {settings.host}: {error} "
                "(another worker? choose another --http-port, 0 picks a free one)"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        clock = SystemClock()
        posted, box = posted or RecentPosts(texts=False, clock=clock), box or AskQueue(clock)
        self._app = App(settings, metrics, health, posted, box, clock)
        config = uvicorn.Config(
            self._app,
            http=_Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # a request that is none is no news
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._server = _Server(config, self._socket)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        log.info("listening", url=f"http://{_in_url(settings.host)}:{self.port}/")

    def close(self) -> None:
        """Stop listening; pages are let go, and answers under way get a moment."""
        self._server.should_exit = True
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._app.events.close)
        self._thread.join(_GOODBYE)
        self._server.force_exit = True
        self._thread.join(_GOODBYE)
        self._socket.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._server.serve())
        except Exception:
            log.exception("metrics and health are no longer served")


class _Server(uvicorn.Server):
    """Leaves it to a door which connections there are."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self._door = ConnectionLimiter(
            listening,
            most_connections(),
            self._protocol,
            self.server_state.connections,  # type: ignore[arg-type]
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        await super().startup(sockets=[])
        self._door.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        self._door.close()
        await super().shutdown(sockets=[])

    def _protocol(self) -> _Connection:
        return _Connection(self.config, self.server_state, self.lifespan.state)


class _Connection(H11Protocol):
    """One connection. The library bounds the wait between two requests, and not the first's."""

    _timer: asyncio.TimerHandle | None = None
    _numbers = itertools.count()

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self.number = next(self._numbers)

    @property
    def answering(self) -> bool:
        """It has asked, and its answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def put_out(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(_PATIENCE, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.answering:
            self._calm()
        elif self._timer is None:
            self._timer = self.loop.call_later(_PATIENCE, self._give_up)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, unless an answer has gone out or is under way."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # the app's answer would come on top of this one
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def _calm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self.answering:
            self.put_out()


def _listen(host: str, port: int) -> socket.socket:
    # Bound here, so that a port that is taken is told where the settings still are at hand.
    known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening = socket.create_server((host, port), family=known[0][0], backlog=128)
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD)
    return listening


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
