"""Servers that are no broker, or only part of one, for clients with wrong settings."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from kafka.protocol.metadata import ApiVersionsResponse
from kafka.protocol.sasl import SaslAuthenticateResponse, SaslHandshakeResponse

CERTIFICATES = Path(__file__).parent.parent / "support" / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"

Handler = Callable[[socket.socket], None]
_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE, _METADATA = 18, 17, 36, 3


class Server:
    """Serves each connection on its own thread until the context ends.

    Attributes:
        port: of 127.0.0.1.
        connections: number of connections accepted so far.
    """

    def __init__(self, handler: Handler, certificate: str | None = None) -> None:
        self._handler = handler
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._context and certificate:
            self._context.load_cert_chain(CERTIFICATES / certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                self.connections += 1
                self._open.append(accepted)
                self._threads.append(threading.Thread(target=self._serve, args=(accepted,)))
                self._threads[-1].start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            if self._context is None:
                self._handler(accepted)
            else:
                with self._context.wrap_socket(accepted, server_side=True) as secure:
                    self._handler(secure)


def silence(connection: socket.socket) -> None:
    """Read and never answer."""
    while connection.recv(4096):
        pass


def http(connection: socket.socket) -> None:
    """Answer as a web server does, after the end of a line."""
    request = b""
    while b"\n" not in request:
        chunk = connection.recv(4096)
        if not chunk:
            return
        request += chunk
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def broker_without_login(connection: socket.socket) -> None:
    """Answer ApiVersions and refuse every SASL mechanism."""
    for api, version, correlation, _ in _requests(connection):
        if api == _API_VERSIONS:
            _send(connection, correlation, _versions(version))
        elif api == _HANDSHAKE:
            _send(connection, correlation, SaslHandshakeResponse(error_code=34, mechanisms=[]))
        else:
            return


class RefusingBroker:
    """Refuses each sign-in and closes the connection with the response, as Kafka may.

    Attributes:
        requests: the bytes of each sign-in.
    """

    def __init__(self, mechanism: str, words: str = "Authentication failed") -> None:
        self._mechanism, self._words = mechanism, words
        self.requests: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        for api, version, correlation, request in _requests(connection):
            if api == _API_VERSIONS:
                _send(connection, correlation, _versions(version))
            elif api == _HANDSHAKE:
                error = 0 if self._mechanism.encode() in request else 33
                response = SaslHandshakeResponse(error_code=error, mechanisms=[self._mechanism])
                _send(connection, correlation, response)
            elif api == _AUTHENTICATE:
                self.requests.append(request)
                refusal = SaslAuthenticateResponse(
                    error_code=58,
                    error_message=self._words,
                    auth_bytes=b"",
                    session_lifetime_ms=0,
                )
                _send(connection, correlation, refusal)
                return
            else:  # a request before the login
                return


broker_that_refuses = RefusingBroker("PLAIN")
# In one answer, without the exchange of RFC 7628, section 3.2.3.
broker_that_refuses_tokens = RefusingBroker("OAUTHBEARER", '{"status":"invalid_token"}')


def _requests(connection: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield the API, version, correlation id and bytes of each request."""
    stream = connection.makefile("rb")
    while size := stream.read(4):
        request = stream.read(struct.unpack(">i", size)[0])
        api, version, correlation = struct.unpack_from(">hhi", request)
        yield api, version, correlation, request


def _versions(version: int) -> Any:
    supported = {_METADATA: 12, _API_VERSIONS: 4, _HANDSHAKE: 1, _AUTHENTICATE: 1}
    return ApiVersionsResponse(
        version=version,
        error_code=0,
        api_keys=[
            ApiVersionsResponse.ApiVersion(api_key=key, min_version=0, max_version=newest)
            for key, newest in supported.items()
        ],
    )


def _send(connection: socket.socket, correlation: int, response: Any, version: int = 1) -> None:
    if response.API_VERSION is None:
        response.API_VERSION = version
    response.with_header(correlation_id=correlation)
    connection.sendall(response.encode(header=True, framed=True))
