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
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Self

from tests.chaos.protocol import Conversation, Frames, Meddler, Meddling

_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK = 65_536


class Wire:
    """Forwards the connections of one worker slot.

    Attributes:
        ports: one for each broker; known before the brokers start.
        delay: seconds that each chunk of data is delayed, in each direction.
        drops_after: idle seconds after which data of a connection are dropped silently, as by a
            load balancer that forgot it.
        dropped: bytes dropped so far.
        doubles: whether each new connection is attempted twice.
        meddler: of connections that speak Kafka's protocol; None passes bytes as they are.
    """

    def __init__(self, brokers: int, meddler: Meddler | None = None) -> None:
        self.meddler = meddler
        self.doubles = False
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(brokers)]
        self.ports = [listener.getsockname()[1] for listener in self._sockets]
        self.delay = 0.0
        self.drops_after = math.inf
        self.dropped = 0
        self._open: set[asyncio.StreamWriter] = set()
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
        self.delay, self.doubles = 0.0, False
        if self.meddler:
            self.meddler.fault = None
        self._whole.set()

    def hang_up(self) -> None:
        """End every connection. Called on the proxies' thread."""
        for writer in self._open:
            writer.close()

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int
    ) -> None:
        await self._whole.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:  # the broker is down, which a closed connection shows
            writer.close()
            return
        second = await self._connect_again(target)
        idle = _IdleTimeout(self.drops_after)
        near, far = (reader, writer), (far_reader, far_writer)
        self._open |= {writer, far_writer}
        try:
            if self.meddler is None:
                await asyncio.gather(self._copy(near, far, idle), self._copy(far, near, idle))
            else:
                talk = Conversation(self.meddler)
                await asyncio.gather(
                    self._copy_requests(near, far, idle, talk),
                    self._copy_answers(far, near, idle, talk),
                )
        finally:
            self._open -= {writer, far_writer}
            if second:
                second.close()

    async def _connect_again(self, target: int) -> asyncio.StreamWriter | None:
        """Open a second connection that nobody uses, as a retried attempt leaves one behind."""
        if not self.doubles:
            return None
        with contextlib.suppress(OSError):
            return (await asyncio.open_connection("127.0.0.1", target))[1]
        return None

    async def _chunks(
        self, reader: asyncio.StreamReader, idle: _IdleTimeout
    ) -> AsyncIterator[bytes]:
        """Yield what arrives, once the route lets it pass."""
        while data := await reader.read(_CHUNK):
            if not idle.passes(asyncio.get_running_loop().time()):
                self.dropped += len(data)
                continue
            await self._whole.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            yield data

    async def _copy(self, source: _End, sink: _End, idle: _IdleTimeout) -> None:
        writer = sink[1]
        with contextlib.suppress(OSError):
            async for data in self._chunks(source[0], idle):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _copy_requests(
        self, near: _End, far: _End, idle: _IdleTimeout, talk: Conversation
    ) -> None:
        frames = Frames()
        with contextlib.suppress(OSError):
            async for data in self._chunks(near[0], idle):
                for frame in frames.feed(data):
                    request, seconds = talk.ask(frame)
                    await asyncio.sleep(seconds)
                    far[1].write(request)
                    near[1].writelines(talk.made())
                await far[1].drain()
                await near[1].drain()
                if talk.closed:
                    break
        self._hang_up(near, far, talk)

    async def _copy_answers(
        self, far: _End, near: _End, idle: _IdleTimeout, talk: Conversation
    ) -> None:
        frames = Frames()
        with contextlib.suppress(OSError):
            async for data in self._chunks(far[0], idle):
                for frame in frames.feed(data):
                    near[1].writelines(talk.answer(frame))
                await near[1].drain()
                if talk.closed:
                    break
        self._hang_up(far, near, talk)

    def _hang_up(self, ended: _End, other: _End, talk: Conversation) -> None:
        """Pass the end of one side on; a fault ends both sides at once."""
        other[1].close()
        if talk.closed:
            ended[1].close()


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

    def __init__(self, slots: int, brokers: int, *, kafka: bool = False) -> None:
        self.slots = [Wire(brokers, Meddler(slot) if kafka else None) for slot in range(slots)]
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

    def meddle(self, slot: int, fault: Meddling) -> None:
        """Let a fault happen to requests of a slot, which speaks Kafka's protocol."""
        meddler = self.slots[slot].meddler
        if meddler is None:
            raise ValueError("these connections do not speak Kafka's protocol")
        meddler.fault = fault

    def meddled(self) -> dict[str, int]:
        """Return how many requests a fault happened to since the last call, by fault and API."""
        total: Counter[str] = Counter()
        for wire in self.slots:
            if wire.meddler:
                total.update(wire.meddler.counts)
                wire.meddler.counts = {}
        return dict(sorted(total.items()))

    def double(self, slot: int) -> None:
        """Attempt each new connection twice."""
        self.slots[slot].doubles = True

    def hang_up(self) -> None:
        """End every connection of every slot."""
        for wire in self.slots:
            self._loop.call_soon_threadsafe(wire.hang_up)

    def heal(self, slot: int) -> None:
        self._loop.call_soon_threadsafe(self.slots[slot].heal)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
