"""Connections that can be cut: TCP proxies on loopback between the workers and the brokers.

One thread runs them all. A cut behaves like a lost route: it drops no data and closes no
connection, and data sent meanwhile arrive when the cut heals, unless an end gave up before.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Sequence
from typing import Self

_CHUNK = 65_536


class Wire:
    """Forwards the connections of one worker slot.

    Attributes:
        ports: one for each broker; known before the brokers start.
        delay: seconds that each chunk of data is delayed, in each direction.
        drops_after: idle seconds after which data of a connection are dropped silently, as by a
            load balancer that forgot it.
        dropped: bytes dropped so far.
    """

    def __init__(self, brokers: int) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(brokers)]
        self.ports = [listener.getsockname()[1] for listener in self._sockets]
        self.delay = 0.0
        self.drops_after = math.inf
        self.dropped = 0
        self._whole = asyncio.Event()
        self._whole.set()

    async def serve(self, targets: Sequence[int]) -> None:
        """Forward to these ports, in the order of the brokers."""
        for own, target in zip(self._sockets, targets, strict=True):

            async def connected(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int = target
            ) -> None:
                await self._connect(reader, writer, target)

            await asyncio.start_server(connected, sock=own)

    def cut(self) -> None:
        """Hold back all data from now on. Called on the proxies' thread."""
        self._whole.clear()

    def heal(self) -> None:
        """Forward data again, without delay. Called on the proxies' thread."""
        self.delay = 0.0
        self._whole.set()

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int
    ) -> None:
        await self._whole.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:  # the broker is down, which a closed connection shows
            writer.close()
            return
        idle = _IdleTimeout(self.drops_after)
        await asyncio.gather(
            self._copy(reader, far_writer, idle), self._copy(far_reader, writer, idle)
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: _IdleTimeout
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if not idle.passes(asyncio.get_running_loop().time()):
                    self.dropped += len(data)
                    continue
                await self._whole.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.close()


class _IdleTimeout:
    """Decides whether a connection still passes data; both directions count as one."""

    def __init__(self, longest_idle: float) -> None:
        self._longest_idle = longest_idle
        self._last: float | None = None

    def passes(self, now: float) -> bool:
        """Return True if data at `now` still pass."""
        if self._last is not None and now - self._last > self._longest_idle:
            self._longest_idle = -1.0
            return False
        self._last = now
        return True


class Wires:
    """All proxies and their thread, for the length of a `with` block."""

    def __init__(self, slots: int, brokers: int) -> None:
        self.slots = [Wire(brokers) for _ in range(slots)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="wires", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def connect(self, targets: Sequence[Sequence[int]]) -> None:
        """Start to forward; `targets` has the ports of the brokers' listeners for each slot."""
        for wire, ports in zip(self.slots, targets, strict=True):
            asyncio.run_coroutine_threadsafe(wire.serve(ports), self._loop).result(10)

    def cut(self, slot: int) -> None:
        self._loop.call_soon_threadsafe(self.slots[slot].cut)

    def slow_down(self, slot: int, delay: float) -> None:
        self.slots[slot].delay = delay

    def heal(self, slot: int) -> None:
        self._loop.call_soon_threadsafe(self.slots[slot].heal)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
