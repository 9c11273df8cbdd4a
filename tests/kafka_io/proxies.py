"""Proxies on loopback: HTTP CONNECT and SOCKS 5, with one user."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable

USER, PASSWORD = "me", "hunter2"
_LOGIN = base64.b64encode(f"{USER}:{PASSWORD}".encode())


def http_connect(connection: socket.socket) -> None:
    """Tunnel to the address of a CONNECT request that has the login."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(4096)
    if b"Basic " + _LOGIN not in request:
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        return
    host, _, port = request.split()[1].decode().rpartition(":")
    _tunnel(connection, (host, int(port)), b"HTTP/1.1 200 OK\r\n\r\n")


def socks5(connection: socket.socket) -> None:
    """Tunnel to an address of IPv4 or a name, after a login (RFC 1928, RFC 1929)."""
    stream = connection.makefile("rb")
    _, methods = stream.read(2)
    if 2 not in stream.read(methods):
        connection.sendall(b"\x05\xff")
        return
    connection.sendall(b"\x05\x02")
    user = stream.read(stream.read(2)[1])
    password = stream.read(stream.read(1)[0])
    right = (user, password) == (USER.encode(), PASSWORD.encode())
    connection.sendall(b"\x01" + bytes([not right]))
    if not right:
        return
    kind = stream.read(4)[3]
    host = (
        socket.inet_ntoa(stream.read(4)) if kind == 1 else stream.read(stream.read(1)[0]).decode()
    )
    port = int.from_bytes(stream.read(2), "big")
    _tunnel(connection, (host, port), b"\x05\x00\x00\x01" + bytes(6))


def _tunnel(client: socket.socket, address: tuple[str, int], greeting: bytes) -> None:
    with socket.create_connection(address) as broker:
        client.sendall(greeting)
        back = threading.Thread(target=_pipe(broker, client))
        back.start()
        _pipe(client, broker)()
        back.join()


def _pipe(source: socket.socket, target: socket.socket) -> Callable[[], None]:
    def run() -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    return run
