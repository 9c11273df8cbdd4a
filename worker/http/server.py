"""Runs the HTTP server of a worker, or of a pool's parent.

Owns: the listening socket, and the daemon thread `http` with its event loop.
Thread: main constructs and closes; the rest runs on http.
Must not import: kafka, torch, worker.runtime.

uvicorn speaks the protocol, `routes` answers, and `connections` decides which connections stay. The
server handles no signals and writes no access log. It closes connections that send no request, and
those that do not read their response.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.clock import SystemClock
from worker.errors import SettingsError
from worker.http.about import About
from worker.http.ask import AskQueue, SupportsAsk
from worker.http.connections import ConnectionLimiter, connection_limit
from worker.http.feeds import PageFeeds
from worker.http.health import Health
from worker.http.history import History, MetricsSource
from worker.http.model import ModelRequests
from worker.http.notes import NotesSource
from worker.http.routes import App
from worker.http.snapshot import SnapshotBuilder
from worker.logs import get_logger
from worker.settings import HttpSettings, Loaded, load

log = get_logger(__name__)

_REQUEST_TIMEOUT: Final = 10.0  # seconds from connecting to a complete request
_UNREAD_MS: Final = 30_000  # a client that acknowledges no byte for so long is dropped
_CLOSE_TIMEOUT: Final = 2.0  # seconds for responses under way


class HttpServer:
    """Serves from construction until `close`.

    Args:
        settings: the address, which parts are on, and who has access.
        metrics, health: what is shown.
        notes: what the page shows beside the metrics; None shows nothing.
        ask_service: answers POST /classify; None answers that there is no model.
        loaded: the worker's settings with their origins, for the page; None shows the defaults.
        model: answers /model; None serves it not.

    Raises:
        SettingsError: the address is taken or invalid; names the setting.
    """

    def __init__(
        self,
        settings: HttpSettings,
        metrics: MetricsSource,
        health: Health,
        notes: NotesSource | None = None,
        ask_service: SupportsAsk | None = None,
        *,
        loaded: Loaded | None = None,
        model: ModelRequests | None = None,
    ) -> None:
        try:
            self._socket = _listen(settings.host, settings.port)
        except (OSError, OverflowError, UnicodeError) as error:  # a label of over 63 letters
            raise SettingsError(
                f"http.port = {settings.port}: cannot listen on {settings.host}: {error}. Is another "
                "worker running? Set another --http-port; 0 picks a free one"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        clock = SystemClock()
        about = About(loaded or load(environ={}), clock.wall_ms())
        notes = notes or PageFeeds.on(settings, clock)
        history = History(metrics, clock)
        snapshots = SnapshotBuilder(
            history, health, notes, about, clock, classify=settings.classify, model=model
        )
        asked = ask_service or AskQueue(clock)
        self._app = App(settings, metrics, health, asked, history, snapshots, model=model)
        config = uvicorn.Config(
            self._app,
            http=_ServerConnection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # uvicorn warns of each malformed request
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        started = self._app.events.start if settings.page else lambda: None
        self._server = _Server(config, self._socket, started)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        log.info("http server listening", url=f"http://{_in_url(settings.host)}:{self.port}/")

    def close(self) -> None:
        """Stop listening, end the event streams, and wait up to 4 s for responses under way."""
        self._server.should_exit = True
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._app.events.close)
        self._thread.join(_CLOSE_TIMEOUT)
        self._server.force_exit = True
        self._thread.join(_CLOSE_TIMEOUT)
        self._socket.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._server.serve())
        except Exception:
            log.exception("http server failed: metrics and health are no longer served")


class _Server(uvicorn.Server):
    """Leaves accepting connections to a `ConnectionLimiter`.

    Args:
        config: of uvicorn.
        listening: accepts connections.
        started: called on the event loop's thread.
    """

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._started = started
        self._limiter = ConnectionLimiter(
            listening,
            connection_limit(),
            self._protocol,
            self.server_state.connections,  # type: ignore[arg-type]
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        await super().startup(sockets=[])
        self._limiter.start()
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        self._limiter.close()
        await super().shutdown(sockets=[])

    def _protocol(self) -> _ServerConnection:
        return _ServerConnection(self.config, self.server_state, self.lifespan.state)


class _ServerConnection(H11Protocol):
    """One connection. uvicorn times out between two requests only, so the first is timed here."""

    _timer: asyncio.TimerHandle | None = None
    _numbers = itertools.count()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.number = next(self._numbers)

    @property
    def answering(self) -> bool:
        """True from a complete request until its response is complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(_REQUEST_TIMEOUT, self._time_out)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.answering:
            self._cancel_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(_REQUEST_TIMEOUT, self._time_out)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request with 400, unless a response is out or under way."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # or the application's response would follow this one
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        if not self.answering:
            self.abort()


def _listen(host: str, port: int) -> socket.socket:
    # Bound here and not by uvicorn, so that the error of a taken port can name the setting.
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening = socket.create_server((host, port), family=addresses[0][0], backlog=128)
    with contextlib.suppress(AttributeError, OSError):  # Linux only; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    return listening


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
