"""The registry of the tests answers, and it can be killed, frozen and started again."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.registry import ApicurioRegistry, new_subject

SCHEMA = '{"type": "record", "name": "Post", "fields": [{"name": "text", "type": "string"}]}'


def test_schemas_outlive_a_kill_and_a_freeze(breakable_registry: ApicurioRegistry) -> None:
    registry = breakable_registry
    id_ = registry.register(new_subject(), SCHEMA)
    registry.kill()
    with pytest.raises(httpx2.ConnectError):
        registry.ask("GET", f"/schemas/ids/{id_}")
    registry.start()
    registry.freeze()
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(f"{registry.url}/schemas/ids/{id_}", timeout=0.5)
    registry.thaw()
    assert "Post" in registry.ask("GET", f"/schemas/ids/{id_}")["schema"]
