"""Probes a server that a client could not connect to.

Owns: nothing.
Thread: any; blocks for a few seconds at most.
Must not import: inference, runtime.

A probe uses plain sockets and TLS, and sends nothing secret. Each request opens a connection of its
own. `diagnose` finds out whether a port speaks Kafka, TLS or HTTP: only a broker answers an
ApiVersions request, and a web server answers a line of HTTP. `unreachable` finds out whether the
brokers' advertised addresses (`advertised.listeners`) can be reached.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, TypeVar

from worker.errors import AccessDenied, Fatal
from worker.kafka_io.causes import Diagnosis
from worker.settings import KafkaSettings

Result = TypeVar("Result")
WireProtocol = Literal["kafka", "http"]

_CONNECT_TIMEOUT, _RESPONSE_TIMEOUT = 1.0, 0.5  # seconds
_MAX_SERVERS = 3  # the others are most likely alike
_MAX_RESPONSE = 4096  # bytes
_API_VERSIONS, _SASL_HANDSHAKE = 18, 17
_UNSUPPORTED_SASL_MECHANISM = 33

_HTTP = Diagnosis(
    Fatal, "an HTTP server answers: kafka.bootstrap_servers must name the port of a Kafka broker"
)
_REQUIRES_TLS = Diagnosis(
    Fatal,
    "this port uses TLS: set kafka.security_protocol to SSL or SASL_SSL, or use the broker's "
    "plaintext port",
)
_REQUIRES_PLAINTEXT = Diagnosis(
    Fatal,
    "this port does not use TLS: set kafka.security_protocol to PLAINTEXT or SASL_PLAINTEXT, or use "
    "the broker's TLS port",
)


class Address(NamedTuple):
    """A broker's host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def diagnose(kafka: KafkaSettings) -> Diagnosis | None:
    """Return the reason why no client with these settings can connect, if there is one."""
    servers = [_address(server) for server in kafka.bootstrap_servers.split(",")][:_MAX_SERVERS]
    return next(filter(None, _concurrently(servers, lambda server: _probe(server, kafka))), None)


def _address(server: str) -> Address:
    host, _, port = server.strip().rpartition(":")
    return Address(host.strip("[]"), int(port))


def unreachable(brokers: Iterable[tuple[int, str, int]]) -> list[str]:
    """Return a sentence for each broker whose advertised address can't be reached.

    Args:
        brokers: id, host and port, as the cluster advertises them.
    """
    addresses = [(broker_id, Address(host, port)) for broker_id, host, port in brokers]
    faults = _concurrently([address for _, address in addresses], _connect_fault)
    return [
        f"broker {broker_id} sends clients to {address}, {fault}: set advertised.listeners of that "
        "broker to an address that this machine can reach"
        for (broker_id, address), fault in zip(addresses, faults, strict=True)
        if fault
    ]


def _concurrently(
    addresses: Sequence[Address], function: Callable[[Address], Result]
) -> list[Result]:
    """Call the function for all addresses at once, as each call may take its full timeout."""
    with ThreadPoolExecutor(max(1, len(addresses)), "probe") as threads:
        return list(threads.map(function, addresses))


def _connect_fault(address: Address) -> str | None:
    """Return why no connection to the address can be made."""
    try:
        socket.create_connection(address, _CONNECT_TIMEOUT).close()
    except socket.gaierror:
        return "which can't be resolved here"
    except ConnectionRefusedError:
        return "where nothing listens"
    except OSError as error:
        return f"which does not answer ({error})"
    return None


def _probe(address: Address, kafka: KafkaSettings) -> Diagnosis | None:
    if _connect_fault(address):  # the client's own messages have the reason
        return None
    tls = kafka.security_protocol.endswith("SSL")
    protocol = _protocol(address, tls=tls)
    if protocol is None:
        other = _protocol(address, tls=not tls)
        wrong = _REQUIRES_PLAINTEXT if tls else _REQUIRES_TLS
        return {"kafka": wrong, "http": _HTTP, None: None}[other]
    if protocol == "http":
        return _HTTP
    return None if kafka.security_protocol.startswith("SASL") else _login(address, tls=tls)


def _protocol(address: Address, *, tls: bool) -> WireProtocol | None:
    response = _exchange(address, _request(_API_VERSIONS, 0), tls=tls)
    if _is_kafka(response):
        return "kafka"
    response = response or _exchange(address, b"GET / HTTP/1.0\r\n\r\n", tls=tls)
    return "http" if response.startswith(b"HTTP/") else None


def _login(address: Address, *, tls: bool) -> Diagnosis | None:
    """Return a diagnosis if the port requires a login.

    Such a port answers a request for an unknown SASL mechanism with a list of those it supports.
    """
    response = _exchange(address, _request(_SASL_HANDSHAKE, 1, _string(b"-")), tls=tls)
    if not _is_kafka(response):
        return None
    if struct.unpack_from(">h", response, 8) != (_UNSUPPORTED_SASL_MECHANISM,):
        return None
    mechanisms = ", ".join(_strings(response[10:]))
    return Diagnosis(
        AccessDenied,
        f"this port requires a login ({mechanisms}): set kafka.security_protocol to "
        f"{'SASL_SSL' if tls else 'SASL_PLAINTEXT'}, and kafka.sasl_mechanism and its settings",
    )


# -- bytes -------------------------------------------------------------------------------------


def _exchange(address: Address, request: bytes, *, tls: bool) -> bytes:
    """Send a request; return the beginning of the response, empty if there is none."""
    try:
        with socket.create_connection(address, _CONNECT_TIMEOUT) as connection:
            connection.settimeout(_RESPONSE_TIMEOUT)
            if not tls:
                return _send_and_receive(connection, request)
            with _unverified().wrap_socket(connection, server_hostname=address.host) as secure:
                return _send_and_receive(secure, request)
    except (OSError, ValueError):  # ValueError: a host name that is not valid for TLS
        return b""


def _send_and_receive(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    return connection.recv(_MAX_RESPONSE)


def _unverified() -> ssl.SSLContext:
    """Return a context without verification: a probe sends no secret, and the client verifies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _request(api: int, version: int, body: bytes = b"") -> bytes:
    """Return a request of Kafka's protocol; its correlation id is the API's number."""
    framed = struct.pack(">hhi", api, version, api) + _string(b"streamlabel") + body
    return struct.pack(">i", len(framed)) + framed


def _is_kafka(response: bytes) -> bool:
    if len(response) < 10:
        return False
    length, correlation = struct.unpack_from(">ii", response)
    return 0 < length < 1_000_000 and correlation in {_API_VERSIONS, _SASL_HANDSHAKE}


def _string(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


def _strings(array: bytes) -> list[str]:
    (number,) = struct.unpack_from(">i", array)
    strings, at = [], 4
    for _ in range(number):
        (length,) = struct.unpack_from(">h", array, at)
        strings.append(array[at + 2 : at + 2 + length].decode(errors="replace"))
        at += 2 + length
    return strings
