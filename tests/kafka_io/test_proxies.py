"""The way to the brokers through a proxy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from pydantic import SecretStr

from tests.conftest import Broker
from tests.kafka_io.proxies import PASSWORD, USER, http_connect, socks5
from tests.kafka_io.servers import Handler, Server
from worker.errors import BrokerAway
from worker.kafka_io import connection
from worker.kafka_io.connection import connect
from worker.settings import KafkaSettings

SCHEMES = [("http", http_connect), ("socks5", socks5), ("socks5h", socks5)]


def settings(scheme: str, proxy: Server, broker: str, password: str = PASSWORD) -> KafkaSettings:
    url = f"{scheme}://{USER}:{password}@127.0.0.1:{proxy.port}"
    return KafkaSettings(bootstrap_servers=broker, proxy_url=SecretStr(url))


@pytest.mark.parametrize("make", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
@pytest.mark.parametrize(("scheme", "handler"), SCHEMES)
def test_each_client_connects_through_a_proxy(
    scheme: str, handler: Handler, make: Callable[..., Any], broker: Broker
) -> None:
    """Bootstrap and the brokers' advertised addresses."""
    with Server(handler) as proxy:
        client = connect(make, settings(scheme, proxy, broker.bootstrap_servers))
        with contextlib.closing(client):
            manager = getattr(client, "_manager", None) or client._sender._client._manager
            assert manager.can_reach_a_broker(30)
        assert proxy.connections >= 2


@pytest.mark.parametrize(("scheme", "handler"), SCHEMES)
def test_a_proxy_that_refuses_is_named_without_its_password(
    scheme: str, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 1.2)
    with Server(handler) as proxy:
        kafka = settings(scheme, proxy, "127.0.0.1:9", password="wrong")
        with pytest.raises(BrokerAway) as raised:
            connect(KafkaAdminClient, kafka)
    route = f"127.0.0.1:9 through the proxy 127.0.0.1:{proxy.port}"
    assert str(raised.value) == (
        f"can't connect to Kafka at {route}: the proxy refuses: check kafka.proxy_url and the "
        "proxy's own log"
    )
