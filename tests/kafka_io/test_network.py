"""Manager: its fixes to the library's network client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaConnectionError
from kafka.future import Future
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import MetadataResponse
from structlog.testing import capture_logs

from tests.conftest import Broker
from tests.kafka_io.servers import Server
from tests.support.clocks import HandClock
from tests.support.workers import wait_until
from worker.kafka_io.connection import connect
from worker.kafka_io.network import Manager
from worker.settings import KafkaSettings

BOOTSTRAP = "bootstrap-0"


class FakeConnection(SimpleNamespace):
    """A connection with the attributes that the manager reads."""

    __hash__ = object.__hash__


@pytest.fixture
def net() -> Iterator[NetworkSelector]:
    made = NetworkSelector()
    yield made
    made.close()


def managed(net: NetworkSelector, *brokers: tuple[int, int], port: int = 1) -> Manager:
    """Return a manager that was connected to `brokers` (id, port)."""
    manager = Manager(net, 180, HandClock(), bootstrap_servers=f"127.0.0.1:{port}")
    manager._bootstrap_future = Future().success(True)
    set_brokers(manager, *brokers)
    return manager


def set_brokers(manager: Manager, *brokers: tuple[int, int]) -> None:
    manager.cluster._brokers = {
        number: MetadataResponse.MetadataResponseBroker(number, "127.0.0.1", port, None)
        for number, port in brokers
    }


@pytest.mark.parametrize("make", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_each_client_uses_the_manager(broker: Broker, make: Callable[..., Any]) -> None:
    """It closes unused connections and connects again."""
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, connections_max_idle=1)
    client = connect(make, settings)
    try:
        manager = getattr(client, "_manager", None) or client._sender._client._manager
        assert isinstance(manager, Manager)
        assert manager.can_reach_a_broker(30)
        wait_until(lambda: not manager._conns, what="its connections are closed")
        assert manager.can_reach_a_broker(30)
    finally:
        client.close()


def test_bootstrap_servers_are_asked_once_all_brokers_have_failed(
    net: NetworkSelector,
) -> None:
    manager = managed(net, (1, 11), (2, 12))
    manager.update_backoff(1)
    assert manager.least_loaded_node() == 2
    manager.update_backoff(2)
    assert manager.least_loaded_node() == BOOTSTRAP
    manager.reset_backoff(2)
    assert manager.least_loaded_node() == 2


def test_failed_bootstrap_servers_are_not_asked_again_at_once(
    net: NetworkSelector,
) -> None:
    manager = managed(net, (1, 11))
    manager.update_backoff(1)
    manager.update_backoff(BOOTSTRAP)
    assert manager.least_loaded_node() is None


def test_a_connection_to_a_brokers_old_address_is_given_up(
    net: NetworkSelector,
) -> None:
    manager, closed = managed(net, (1, 11), (2, 12)), []
    for number, port, initializing in ((1, 11, True), (2, 12, True)):
        manager._conns[number] = SimpleNamespace(
            address=("127.0.0.1", port),
            initializing=initializing,
            close=lambda error, number=number: closed.append((number, type(error))),
        )
    set_brokers(manager, (1, 21), (2, 12))
    manager._follow(manager.cluster)
    assert closed == [(1, KafkaConnectionError)]


def test_a_connection_that_awaits_a_response_is_not_idle(net: NetworkSelector) -> None:
    """During a rebalance a connection may carry no data for minutes."""
    manager = managed(net, (1, 11))
    for number, requests in ((1, [object()]), (2, [])):
        manager._conns[number] = SimpleNamespace(
            connected=True,
            in_flight_requests=requests,
            transport=SimpleNamespace(last_activity=0.0),
            node_id=number,
        )
    assert [conn.node_id for conn in manager.least_used_connections()] == [2]


@pytest.mark.parametrize(
    ("waited", "timeout", "lines"), [(9.0, 30.0, 0), (10.5, 30.0, 1), (200.0, 305.0, 0)]
)
def test_a_late_response_is_logged_once(
    net: NetworkSelector, waited: float, timeout: float, lines: int
) -> None:
    """A request with a longer timeout waits for the group, such as a join."""
    manager = managed(net, (1, 11))
    request = (1, Future(), 100.0, 100.0 + timeout, None)
    manager._conns[1] = conn = FakeConnection(
        in_flight_requests=[request],
        close_future=Future(),
        transport=SimpleNamespace(last_read=58.0, host_port=lambda: "127.0.0.1:11"),
    )
    manager._clock.now = 100.0 + waited
    with capture_logs() as logged:
        for _ in range(2):
            manager._find_late_responses()
    assert [(line["broker"], line["idle_before_s"]) for line in logged] == [
        ("127.0.0.1:11", 42.0)
    ] * lines
    conn.close_future.success(None)
    assert not manager._reported_late


def test_a_server_that_hangs_up_counts_as_failed(net: NetworkSelector) -> None:
    """Another server may listen at a broker's old address."""
    with Server(lambda _: None) as server:
        manager = managed(net, (1, server.port))
        for failures in (1, 2):
            conn = manager.get_connection(1, timeout_ms=30_000)
            net.poll(timeout_ms=30_000, future=conn.close_future)
            net.poll(timeout_ms=0)
            count, _, timeout_ms = manager._backoff[1]
            assert count == failures
            manager._backoff[1] = (count, 0.0, timeout_ms)
