"""The library's network client, mended in six places.

The client's IO thread runs all of it, but for the constructor and `reached`. Imports no inference
and no runtime. The library's private names that it builds on are held by a test
(`tests/kafka_io/test_network.py`).

* *The first refusal ends the first connection.* The library tries a wrong password again until the
  time is up, which locks accounts.
* *An answer that arrives with the end of its connection counts.* The library drops it: every other
  refusal of a password would look like a connection that was lost.
* *A TLS handshake has an end.* The library waits for ever for a server that says nothing.
* *Brokers that have all moved are looked for at `bootstrap_servers`*, as in KIP-899. The library
  asks only those that it was told of last, for ever.
* *An idle connection is closed before something between here and the broker drops it in silence.*
  The library would also close one on which it waits for an answer, as it does while a group settles.
* *An answer that is late is said*, once a connection, and for how long that had been idle.
"""

from __future__ import annotations

import random
import ssl
import threading
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from worker.clock import Clock
from worker.errors import AccessDenied
from worker.kafka_io.causes import Verdict, refusal
from worker.logs import get_logger

log = get_logger(__name__)

_LATE = 1 / 3  # of the request timeout


class _LastWords:
    """A transport that hands on what it has received before it tells of the connection's end."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()  # type: ignore[misc]
        return data, None if data else error  # the end is still there when it is read again


class _Plain(_LastWords, KafkaTCPTransport):  # type: ignore[misc]
    pass


class _Secure(_LastWords, KafkaSSLTransport):  # type: ignore[misc]
    give_up_at: float | None = None

    async def handshake(self) -> None:
        """Shake hands, but not for ever: a server that says nothing is given up in time."""
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at=self.give_up_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at=self.give_up_at)
            else:
                return


class Manager(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of one client.

    Args:
        net: the loop that runs them.
        max_idle: seconds after which a connection that nobody uses is closed.
        clock: measures silence.
        configs: the library's.
    """

    def __init__(self, net: Any, max_idle: float, clock: Clock, **configs: Any) -> None:
        self._clock = clock
        self._refused: set[Any] = set()  # nodes
        self._refusal: Exception | None = None
        self._late: set[Any] = set()  # connections of which it was said
        super().__init__(net, **configs | {"connections_max_idle_ms": max_idle * 1000})
        self.cluster.add_listener(self._follow)
        self._late_after = self.config["request_timeout_ms"] / 1000 * _LATE
        self._look_for_late_answers()

    # -- the first connection ------------------------------------------------------------------

    def get_connection(self, node_id: Any, **options: Any) -> Any:
        """A connection to a node, be it still under way. Raises what was refused."""
        if self._refusal is not None:
            raise self._refusal
        return super().get_connection(node_id, **options)

    async def _connect(self, node: Any, conn: Any, *args: Any, **options: Any) -> None:
        conn.address = node.host, node.port
        before = self._backoff.get(node.node_id)
        await super()._connect(node, conn, *args, **options)
        failure = conn.init_future.exception if conn.init_future.failed() else None
        if failure is None:
            return
        if node.node_id not in self._backoff:  # for the library it has succeeded
            self._backoff.update({node.node_id: before} if before else {})
            self.update_backoff(node.node_id)
        if not self.bootstrapped and (verdict := refusal(str(failure))):
            self._note(node.node_id, verdict, failure)

    def _note(self, node_id: Any, verdict: Verdict, failure: Exception) -> None:
        """Have a refusal end the attempt: of credentials at once, else of every server."""
        self._refused.add(node_id)
        every = len(self._refused) == len(self.cluster.bootstrap_brokers())
        if verdict.meaning is AccessDenied or every:
            self._refusal = failure

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        config = self.config
        sock = await create_connection(
            self._net, node.host, node.port, config["socket_options"], timeout_at=timeout_at
        )
        if not self.ssl_enabled:
            return _Plain(self._net, sock, host=node.host)
        tls = {name: value for name, value in config.items() if name.startswith("ssl_")}
        transport = _Secure(self._net, sock, host=node.host, **tls)
        transport.give_up_at = timeout_at
        try:
            await transport.handshake()
        except Exception as error:
            transport.close()
            raise KafkaConnectionError(f"Handshake failed: {error}") from error
        return transport

    def reached(self, timeout: float) -> bool:
        """True if a broker lets us in at the address that it sends clients to; any thread."""
        done = threading.Event()
        attempt = self.call_soon(self._reach)
        attempt.add_both(lambda _: done.set())
        return done.wait(timeout) and bool(attempt.succeeded())

    async def _reach(self) -> None:
        await self.get_connection(super().least_loaded_node())

    # -- brokers that have moved ---------------------------------------------------------------

    def least_loaded_node(self) -> Any:
        """A node to ask; one of `bootstrap_servers` once all others could not be reached."""
        known = super().least_loaded_node()
        lost = all(broker.node_id in self._backoff for broker in self.cluster.brokers())
        if not self.bootstrapped or not lost:
            return known
        first = [broker.node_id for broker in self.cluster.bootstrap_brokers()]
        free = [node_id for node_id in first if not self.connection_delay(node_id)]
        return random.choice(free) if free else known

    def _follow(self, _: Any) -> None:
        """Give up connecting to where a broker was, now that it is known to be elsewhere."""
        for node_id, conn in list(self._conns.items()):
            node = self.cluster.broker_metadata(node_id)
            address = getattr(conn, "address", None)
            if node and address and conn.initializing and address != (node.host, node.port):
                conn.close(KafkaConnectionError("the broker has moved"))

    # -- silence -------------------------------------------------------------------------------

    def least_used_connections(self) -> list[Any]:
        """Those that may be closed when they have been idle for long, the most idle first."""
        return [conn for conn in super().least_used_connections() if not conn.in_flight_requests]

    def _look_for_late_answers(self) -> None:
        for conn in list(self._conns.values()):
            if conn.in_flight_requests and conn not in self._late:
                self._look_at(conn)
        self._net.call_later(self._late_after / 4, self._look_for_late_answers)

    def _look_at(self, conn: Any) -> None:
        _, _, sent_at, timeout_at, _ = conn.in_flight_requests[0]
        usual = timeout_at - sent_at < self.config["request_timeout_ms"] / 1000 + 1
        waited = self._clock.monotonic() - sent_at
        # A request that may take longer waits for the group, and not for the broker.
        if not usual or waited < self._late_after or conn.transport is None:
            return
        self._late.add(conn)
        conn.close_future.add_both(lambda _: self._late.discard(conn))
        log.warning(
            "a broker's answer is late; if the connection had been idle, something in between may "
            "have dropped it: set kafka.connections_max_idle below what that allows",
            broker=conn.transport.host_port(),
            waited_s=round(waited, 1),
            idle_before_s=round(max(0.0, sent_at - conn.transport.last_read), 1),
        )


def client_factory(max_idle: float, clock: Clock, made: list[KafkaNetClient]) -> Any:
    """Makes the function that the library calls for a client's network; `made` gets each result."""

    def make(**configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        made.append(KafkaNetClient(net, Manager(net, max_idle, clock, **configs)))
        return made[-1]

    return make
