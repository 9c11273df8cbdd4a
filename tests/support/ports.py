"""Ports for the processes that a test starts.

The kernel gives a connection any free port from 32,768 on (`net.ipv4.ip_local_port_range`), maybe
the very one that a process is about to listen at. So these are lower, and each process of the test
run has its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

_FIRST, _EACH, _RUNNERS = 21_000, 1_000, 11
_RUNNER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _RUNNERS
# Another run of the tests on this machine begins elsewhere.
_turns = itertools.count(random.randrange(_EACH))


def free_ports(number: int) -> list[int]:
    """Return ports of 127.0.0.1 that were free a moment ago, and aren't given away again soon."""
    ports: list[int] = []
    while len(ports) < number:
        port = _FIRST + _RUNNER * _EACH + next(_turns) % _EACH
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            ports.append(port)
    return ports


def free_port() -> int:
    """Return one of them."""
    return free_ports(1)[0]
