"""Asks a server plainly what it speaks: for clients that get no answer, or none that helps.

Any thread may call it; it blocks for some seconds at most. Sockets and TLS alone, no client and
nothing secret. Imports no inference and no runtime.

Each question opens a connection of its own. The first tells which of Kafka, TLS and HTTP is spoken
at a port: an ApiVersions request is answered by a broker alone, a line of HTTP by a web server. The
second tells whether the addresses that brokers send clients to (`advertised.listeners`) can be
reached from here.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, TypeVar

from worker.errors import AccessDenied, Fatal
from worker.kafka_io.causes import Verdict
from worker.settings import KafkaSettings

Answer = TypeVar("Answer")
Spoken = Literal["kafka", "http"]

_CONNECT, _ANSWER = 1.0, 0.5  # seconds
_SERVERS = 3  # asked at most; the others are most likely like them
_ENOUGH = 4096  # bytes
_API_VERSIONS, _SASL_HANDSHAKE = 18, 17
_NO_MECHANISM = 33  # Kafka's code for a way to log in that the broker does not have

_HTTP = Verdict(
    Fatal, "an HTTP server answers there: kafka.bootstrap_servers must name a Kafka broker's port"
)
_WANTS_TLS = Verdict(
    Fatal,
    "this port speaks TLS: set kafka.security_protocol to SSL or SASL_SSL, or use the broker's "
    "plaintext port",
)
_WANTS_PLAIN = Verdict(
    Fatal,
    "this port speaks no TLS: set kafka.security_protocol to PLAINTEXT or SASL_PLAINTEXT, or use "
    "the broker's TLS port",
)


class Address(NamedTuple):
    """A broker's host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def diagnose(kafka: KafkaSettings) -> Verdict | None:
    """The reason why no client with these settings can get an answer, if there is one."""
    parted = (server.strip().rpartition(":") for server in kafka.bootstrap_servers.split(","))
    servers = [Address(host.strip("[]"), int(port)) for host, _, port in parted][:_SERVERS]
    return next(filter(None, _each(servers, lambda server: _ask(server, kafka))), None)


def unreachable(brokers: Iterable[tuple[int, str, int]]) -> list[str]:
    """A sentence for each broker whose own address can't be reached from here.

    Args:
        brokers: id, host and port, as the cluster tells them.
    """
    told = [(number, Address(host, port)) for number, host, port in brokers]
    faults = _each([address for _, address in told], _absence)
    return [
        f"broker {number} sends clients to {address}, {fault}: set advertised.listeners of that "
        "broker to an address that this machine can reach"
        for (number, address), fault in zip(told, faults, strict=True)
        if fault
    ]


def _each(asked: Sequence[Address], question: Callable[[Address], Answer]) -> list[Answer]:
    """Ask all at once: a name or a port may take its whole time."""
    with ThreadPoolExecutor(max(1, len(asked)), "probe") as threads:
        return list(threads.map(question, asked))


def _absence(address: Address) -> str | None:
    """Why nobody can be connected to there."""
    try:
        socket.create_connection(address, _CONNECT).close()
    except socket.gaierror:
        return "which can't be resolved here"
    except ConnectionRefusedError:
        return "where nothing listens"
    except OSError as error:
        return f"which does not answer ({error})"
    return None


def _ask(address: Address, kafka: KafkaSettings) -> Verdict | None:
    if _absence(address):  # the client complains of that itself
        return None
    tls = kafka.security_protocol.endswith("SSL")
    spoken = _spoken(address, tls=tls)
    if spoken is None:
        other = _spoken(address, tls=not tls)
        wrong = _WANTS_PLAIN if tls else _WANTS_TLS
        return {"kafka": wrong, "http": _HTTP, None: None}[other]
    if spoken == "http":
        return _HTTP
    return None if kafka.security_protocol.startswith("SASL") else _login(address, tls=tls)


def _spoken(address: Address, *, tls: bool) -> Spoken | None:
    said = _say(address, _request(_API_VERSIONS, 0), tls=tls)
    if _is_answer(said):
        return "kafka"
    said = said or _say(address, b"GET / HTTP/1.0\r\n\r\n", tls=tls)
    return "http" if said.startswith(b"HTTP/") else None


def _login(address: Address, *, tls: bool) -> Verdict | None:
    """A verdict if the port asks for a login: it lists its ways when asked for one that is none."""
    said = _say(address, _request(_SASL_HANDSHAKE, 1, _text(b"-")), tls=tls)
    if not _is_answer(said) or struct.unpack_from(">h", said, 8) != (_NO_MECHANISM,):
        return None
    ways = ", ".join(_texts(said[10:]))
    return Verdict(
        AccessDenied,
        f"this port asks for a login ({ways}): set kafka.security_protocol to "
        f"{'SASL_SSL' if tls else 'SASL_PLAINTEXT'}, and kafka.sasl_mechanism, kafka.sasl_username "
        "and kafka.sasl_password",
    )


# -- bytes -------------------------------------------------------------------------------------


def _say(address: Address, words: bytes, *, tls: bool) -> bytes:
    """The beginning of the answer; empty where there is none, be it for want of TLS."""
    try:
        with socket.create_connection(address, _CONNECT) as connection:
            connection.settimeout(_ANSWER)
            if not tls:
                return _answer(connection, words)
            with _unverified().wrap_socket(connection, server_hostname=address.host) as secure:
                return _answer(secure, words)
    except (OSError, ValueError):  # ValueError: a host name that TLS can't ask for
        return b""


def _answer(connection: socket.socket, words: bytes) -> bytes:
    connection.sendall(words)
    return connection.recv(_ENOUGH)


def _unverified() -> ssl.SSLContext:
    """A context for a question that holds no secret; the client itself verifies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _request(api: int, version: int, body: bytes = b"") -> bytes:
    """A request of Kafka's protocol; its correlation id is its API's number."""
    framed = struct.pack(">hhi", api, version, api) + _text(b"streamlabel") + body
    return struct.pack(">i", len(framed)) + framed


def _is_answer(said: bytes) -> bool:
    if len(said) < 10:
        return False
    length, correlation = struct.unpack_from(">ii", said)
    return 0 < length < 1_000_000 and correlation in {_API_VERSIONS, _SASL_HANDSHAKE}


def _text(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


def _texts(array: bytes) -> list[str]:
    (number,) = struct.unpack_from(">i", array)
    texts, at = [], 4
    for _ in range(number):
        (length,) = struct.unpack_from(">h", array, at)
        texts.append(array[at + 2 : at + 2 + length].decode(errors="replace"))
        at += 2 + length
    return texts
