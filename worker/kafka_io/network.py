"""The library's network client, with seven fixes.

Owns: the connections of one client.
Thread: the client's IO thread, except for the constructor and `can_reach_a_broker`.
Must not import: inference, runtime.

* *The first refusal ends the first connection.* The library tries a wrong password again until its
  time is up, which locks accounts.
* *A response that arrives with the end of its connection counts.* The library drops it: every other
  refusal of a password would look like a lost connection.
* *A TLS handshake times out.* The library waits without end for a server that sends nothing.
* *If all brokers have moved, the client asks `bootstrap_servers`*, as in KIP-899. The library asks
  only the brokers that it heard of last, without end.
* *An idle connection is closed before a firewall or NAT drops it silently.* The library would also
  close a connection on which it awaits a response, as it does while a group rebalances.
* *A late response is logged*, once a connection, with the time for which it had been idle.
* *TLS is that of `tls`*, which can do more.
"""

from __future__ import annotations

import functools
import random
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaConnectionError

from worker.clock import Clock
from worker.errors import AccessDenied, SettingsError
from worker.kafka_io.causes import Diagnosis, permanent_failure
from worker.kafka_io.internals import (
    KafkaConnectionManager,
    KafkaNetClient,
    KafkaSSLTransport,
    KafkaTCPTransport,
    NetworkSelector,
    create_connection,
    sign_in_by,
)
from worker.kafka_io.password import Password
from worker.kafka_io.sign_in import password_of
from worker.kafka_io.tls import tls_context
from worker.kafka_io.tokens import TokenProvider
from worker.logs import get_logger
from worker.settings import KafkaSettings

log = get_logger(__name__)

_LATE = 1 / 3  # of the request timeout


class _DataBeforeError:
    """A transport that delivers the data it has received before it reports the connection's end."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()  # type: ignore[misc]
        return data, None if data else error  # the next read reports the error again


class _PlainTransport(_DataBeforeError, KafkaTCPTransport):  # type: ignore[misc]
    pass


class _TlsTransport(_DataBeforeError, KafkaSSLTransport):  # type: ignore[misc]
    deadline: float | None = None

    async def handshake(self) -> None:
        """Shake hands before the deadline."""
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at=self.deadline)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at=self.deadline)
            else:
                return


class Manager(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of one client.

    Args:
        net: the IO loop that runs them.
        max_idle: seconds after which an unused connection is closed.
        clock: measures how late a response is.
        tls: makes the TLS context of a connection.
        password: signs connections in, if it is in a file that may be replaced.
        configs: the library's options.
    """

    def __init__(
        self,
        net: Any,
        max_idle: float,
        clock: Clock,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        password: Password | None = None,
        **configs: Any,
    ) -> None:
        self._clock, self._tls, self._password = clock, tls, password
        self._refused_by: set[Any] = set()  # node ids
        self._refusal: Exception | None = None
        self._reported_late: set[Any] = set()  # connections
        super().__init__(net, **configs | {"connections_max_idle_ms": max_idle * 1000})
        self.cluster.add_listener(self._follow)
        self._late_after = self.config["request_timeout_ms"] / 1000 * _LATE
        self._find_late_responses()
        self._tokens: TokenProvider | None = self.config["sasl_oauth_token_provider"]
        if self._tokens is not None:
            self._tokens.retain()

    def close(self, node_id: Any = None, timeout_ms: float | None = None) -> None:
        """Close one connection or all; with the last, the client's token is needed no longer."""
        if node_id is None and not self.closed and self._tokens is not None:
            self._tokens.release()
        super().close(node_id, timeout_ms)

    # -- the first connection ------------------------------------------------------------------

    def get_connection(self, node_id: Any, **options: Any) -> Any:
        """Return a connection to a node, perhaps unfinished. Raises the broker's refusal."""
        if self._refusal is not None:
            raise self._refusal
        return super().get_connection(node_id, **options)

    async def _connect(self, node: Any, conn: Any, *args: Any, **options: Any) -> None:
        conn.address = node.host, node.port
        if self._tokens is not None:
            sign_in_by(conn, self._tokens.sign_in)
        elif self._password is not None:
            sign_in_by(conn, functools.partial(self._password.sign_in, conn.config))
        backoff = self._backoff.get(node.node_id)
        await super()._connect(node, conn, *args, **options)
        failure = conn.init_future.exception if conn.init_future.failed() else None
        if failure is None:
            return
        if node.node_id not in self._backoff:  # the library counts it as a success
            self._backoff.update({node.node_id: backoff} if backoff else {})
            self.update_backoff(node.node_id)
        if not self.bootstrapped and (diagnosis := permanent_failure(str(failure))):
            self._note_refusal(node.node_id, diagnosis, failure)

    def _note_refusal(self, node_id: Any, diagnosis: Diagnosis, failure: Exception) -> None:
        """Let a refusal end the attempt: of credentials at once, any other from every server."""
        self._refused_by.add(node_id)
        by_all = len(self._refused_by) == len(self.cluster.bootstrap_brokers())
        if diagnosis.error_type is AccessDenied or by_all:
            self._refusal = failure

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        config = self.config
        sock = await create_connection(
            self._net,
            node.host,
            node.port,
            config["socket_options"],
            proxy_url=config["proxy_url"],
            timeout_at=timeout_at,
        )
        if not self.ssl_enabled:
            return _PlainTransport(self._net, sock, host=node.host)
        transport = _TlsTransport(self._net, sock, host=node.host, ssl_context=self._context(sock))
        transport.deadline = timeout_at
        try:
            await transport.handshake()
        except Exception as error:
            transport.close()
            raise KafkaConnectionError(f"Handshake failed: {error}") from error
        return transport

    def _context(self, sock: socket.socket) -> ssl.SSLContext:
        """Return a TLS context; files that are being replaced count as a lost connection."""
        try:
            return self._tls()
        except SettingsError as error:
            sock.close()
            raise KafkaConnectionError(str(error)) from error

    def can_reach_a_broker(self, timeout: float) -> bool:
        """Any thread: return whether a broker accepts us at its advertised address."""
        done = threading.Event()
        attempt = self.call_soon(self._reach)
        attempt.add_both(lambda _: done.set())
        return done.wait(timeout) and bool(attempt.succeeded())

    async def _reach(self) -> None:
        await self.get_connection(super().least_loaded_node())

    # -- brokers that have moved ---------------------------------------------------------------

    def least_loaded_node(self) -> Any:
        """Return a node to ask: one of `bootstrap_servers` if no known broker can be reached."""
        known = super().least_loaded_node()
        lost = all(broker.node_id in self._backoff for broker in self.cluster.brokers())
        if not self.bootstrapped or not lost:
            return known
        bootstrap = [broker.node_id for broker in self.cluster.bootstrap_brokers()]
        ready = [node_id for node_id in bootstrap if not self.connection_delay(node_id)]
        return random.choice(ready) if ready else known

    def _follow(self, _: Any) -> None:
        """Stop connecting to an address that its broker has left."""
        for node_id, conn in list(self._conns.items()):
            node = self.cluster.broker_metadata(node_id)
            address = getattr(conn, "address", None)
            if node and address and conn.initializing and address != (node.host, node.port):
                conn.close(KafkaConnectionError("the broker has moved"))

    # -- idle connections and late responses -----------------------------------------------------

    def least_used_connections(self) -> list[Any]:
        """Return the connections that may be closed when idle, the longest idle first."""
        return [conn for conn in super().least_used_connections() if not conn.in_flight_requests]

    def _find_late_responses(self) -> None:
        for conn in list(self._conns.values()):
            if conn.in_flight_requests and conn not in self._reported_late:
                self._report_if_late(conn)
        self._net.call_later(self._late_after / 4, self._find_late_responses)

    def _report_if_late(self, conn: Any) -> None:
        _, _, sent_at, timeout_at, _ = conn.in_flight_requests[0]
        # A request with a longer timeout waits for the group, not for the broker.
        ordinary = timeout_at - sent_at < self.config["request_timeout_ms"] / 1000 + 1
        waited = self._clock.monotonic() - sent_at
        if not ordinary or waited < self._late_after or conn.transport is None:
            return
        self._reported_late.add(conn)
        conn.close_future.add_both(lambda _: self._reported_late.discard(conn))
        log.warning(
            "a broker's response is late; if the connection had been idle, a firewall or NAT may "
            "have dropped it: set kafka.connections_max_idle below its idle timeout",
            broker=conn.transport.host_port(),
            waited_s=round(waited, 1),
            idle_before_s=round(max(0.0, sent_at - conn.transport.last_read), 1),
        )


def client_factory(kafka: KafkaSettings, clock: Clock, clients: list[KafkaNetClient]) -> Any:
    """Return the function that the library calls for a network client.

    Args:
        kafka: how long an unused connection is kept, and its TLS.
        clock: measures how late a response is.
        clients: each client that the function makes is appended.
    """

    def make(**configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        tls = functools.partial(tls_context, kafka)
        password = password_of(kafka)
        manager = Manager(net, kafka.connections_max_idle, clock, tls, password, **configs)
        clients.append(KafkaNetClient(net, manager))
        return clients[-1]

    return make
