"""Manager: what it mends of the library's network client, and the private names that it needs."""

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

FIRST = "bootstrap-0"


class Fake(SimpleNamespace):
    """A connection, as far as it is looked at."""

    __hash__ = object.__hash__


@pytest.fixture
def net() -> Iterator[NetworkSelector]:
    made = NetworkSelector()
    yield made
    made.close()


def managed(net: NetworkSelector, *brokers: tuple[int, int], port: int = 1) -> Manager:
    """A manager that has spoken to `brokers` (id, port) once, and has lost them since."""
    manager = Manager(net, 180, HandClock(), bootstrap_servers=f"127.0.0.1:{port}")
    manager._bootstrap_future = Future().success(True)
    tell(manager, *brokers)
    return manager


def tell(manager: Manager, *brokers: tuple[int, int]) -> None:
    manager.cluster._brokers = {
        number: MetadataResponse.MetadataResponseBroker(number, "127.0.0.1", port, None)
        for number, port in brokers
    }


@pytest.mark.parametrize("make", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_each_client_has_it(broker: Broker, make: Callable[..., Any]) -> None:
    """And closes what nobody uses, and comes back."""
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


def test_bootstrap_servers_are_asked_once_every_known_broker_has_failed(
    net: NetworkSelector,
) -> None:
    manager = managed(net, (1, 11), (2, 12))
    manager.update_backoff(1)
    assert manager.least_loaded_node() == 2
    manager.update_backoff(2)
    assert manager.least_loaded_node() == FIRST
    manager.reset_backoff(2)
    assert manager.least_loaded_node() == 2


def test_bootstrap_servers_that_have_failed_are_not_asked_again_at_once(
    net: NetworkSelector,
) -> None:
    manager = managed(net, (1, 11))
    manager.update_backoff(1)
    manager.update_backoff(FIRST)
    assert manager.least_loaded_node() is None


def test_who_connects_to_where_a_broker_was_gives_up_when_it_is_elsewhere(
    net: NetworkSelector,
) -> None:
    manager, closed = managed(net, (1, 11), (2, 12)), []
    for number, port, initializing in ((1, 11, True), (2, 12, True)):
        manager._conns[number] = SimpleNamespace(
            address=("127.0.0.1", port),
            initializing=initializing,
            close=lambda error, number=number: closed.append((number, type(error))),
        )
    tell(manager, (1, 21), (2, 12))
    manager._follow(manager.cluster)
    assert closed == [(1, KafkaConnectionError)]


def test_a_connection_that_waits_for_an_answer_is_not_idle(net: NetworkSelector) -> None:
    """While a group settles nothing is said on it for minutes."""
    manager = managed(net, (1, 11))
    for number, waiting in ((1, [object()]), (2, [])):
        manager._conns[number] = SimpleNamespace(
            connected=True,
            in_flight_requests=waiting,
            transport=SimpleNamespace(last_activity=0.0),
            node_id=number,
        )
    assert [conn.node_id for conn in manager.least_used_connections()] == [2]


@pytest.mark.parametrize(
    ("waited", "allowed", "said"), [(9.0, 30.0, 0), (10.5, 30.0, 1), (200.0, 305.0, 0)]
)
def test_a_late_answer_is_said_once_unless_it_is_the_groups(
    net: NetworkSelector, waited: float, allowed: float, said: int
) -> None:
    """A join may wait for others as long as a batch may take."""
    manager = managed(net, (1, 11))
    request = (1, Future(), 100.0, 100.0 + allowed, None)
    manager._conns[1] = conn = Fake(
        in_flight_requests=[request],
        close_future=Future(),
        transport=SimpleNamespace(last_read=58.0, host_port=lambda: "127.0.0.1:11"),
    )
    manager._clock.now = 100.0 + waited
    with capture_logs() as lines:
        for _ in range(2):
            manager._find_late_responses()
    assert [(line["broker"], line["idle_before_s"]) for line in lines] == [
        ("127.0.0.1:11", 42.0)
    ] * said
    conn.close_future.success(None)
    assert not manager._reported_late


def test_a_server_that_hangs_up_counts_as_one_that_failed(net: NetworkSelector) -> None:
    """Something else may listen by now where the broker was."""
    with Server(lambda _: None) as server:
        manager = managed(net, (1, server.port))
        for failures in (1, 2):
            conn = manager.get_connection(1, timeout_ms=30_000)
            net.poll(timeout_ms=30_000, future=conn.close_future)
            net.poll(timeout_ms=0)
            counted, _, timeout_ms = manager._backoff[1]
            assert counted == failures
            manager._backoff[1] = (counted, 0.0, timeout_ms)
