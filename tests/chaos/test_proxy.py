"""A wire forgets each connection that fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.chaos import proxy
from tests.chaos.proxy import Wire


async def _fail(*_: object) -> None:
    raise ValueError("no frame of Kafka's")


def test_a_connection_that_fails_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(*_: object) -> Any:
        return object(), object()

    wire = Wire(1)
    monkeypatch.setattr(proxy.asyncio, "open_connection", opened)
    monkeypatch.setattr(wire, "_copy", _fail)
    near: Any = object()
    with pytest.raises(ValueError, match="no frame"):
        asyncio.run(wire._connect(near, near, 1))
    assert not wire._open
    for listener in wire._sockets:
        listener.close()
