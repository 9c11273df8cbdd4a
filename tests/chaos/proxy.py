"""A wire that can be cut: TCP proxies on loopback between the workers and the brokers.

One thread runs them all. A cut wire swallows nothing and closes nothing, as a dropped route does:
what is sent meanwhile arrives when the cut heals, unless somebody gave up before.
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
    """What one worker slot's connections go through.

    Attributes:
        ports: one for each broker; known before the brokers are.
        delay: seconds that each piece of data takes, each way.
        drops_after: seconds of idleness after which a connection's data are swallowed, as load
            balancers do that forget it; nobody is told.
        swallowed: bytes, so far.
    """

    def __init__(self, brokers: int) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(brokers)]
        self.ports = [one.getsockname()[1] for one in self._sockets]
        self.delay = 0.0
        self.drops_after = math.inf
        self.swallowed = 0
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
        """Nothing passes from now on. On the proxies' thread."""
        self._whole.clear()

    def heal(self) -> None:
        """All passes again, and without delay. On the proxies' thread."""
        self.delay = 0.0
        self._whole.set()

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int
    ) -> None:
        await self._whole.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:  # the broker is down: so says the closed connection
            writer.close()
            return
        pulse = _Pulse(self.drops_after)
        await asyncio.gather(
            self._copy(reader, far_writer, pulse), self._copy(far_reader, writer, pulse)
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pulse: _Pulse
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if not pulse.beats(asyncio.get_running_loop().time()):
                    self.swallowed += len(data)
                    continue
                await self._whole.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.close()


class _Pulse:
    """Whether a connection is remembered: both ways are one connection."""

    def __init__(self, longest_pause: float) -> None:
        self._longest_pause = longest_pause
        self._last: float | None = None

    def beats(self, now: float) -> bool:
        """Whether data at `now` still pass."""
        if self._last is not None and now - self._last > self._longest_pause:
            self._longest_pause = -1.0
            return False
        self._last = now
        return True


class Wires:
    """All wires and their thread, for as long as the context lasts."""

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
        """Begin to forward; for each slot the ports of the brokers' listeners."""
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
