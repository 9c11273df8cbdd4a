"""Every setting of a client reaches the library, or the socket."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from tests.conftest import Broker
from tests.support.workers import wait_until
from worker.kafka_io import connection
from worker.kafka_io.connection import connect, connect_reader
from worker.kafka_io.source import _consumer_options
from worker.settings import KafkaSettings, Settings, load

CLIENTS = (KafkaAdminClient, KafkaConsumer, KafkaProducer)


class Recorder:
    """Takes the options of a client class, and makes no client."""

    def __init__(self, client: Any) -> None:
        self.DEFAULT_CONFIG = client.DEFAULT_CONFIG
        self.options: dict[str, Any] = {}

    def __call__(self, kafka_client: Any, **options: Any) -> SimpleNamespace:
        assert set(options) <= set(self.DEFAULT_CONFIG), "the library refuses the others"
        self.options = options
        kafka_client()
        return SimpleNamespace(close=lambda: None)


def options_of(client: Any, kafka: KafkaSettings, **more: Any) -> dict[str, Any]:
    """Return the options that a client of this class would get."""
    recorder = Recorder(client)
    connect(recorder, kafka, **more)
    return recorder.options


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A recorder's clients have no connections to look at."""
    if "broker" not in request.fixturenames:
        manager = SimpleNamespace(can_reach_a_broker=lambda _: True)
        network = SimpleNamespace(_manager=manager)
        monkeypatch.setattr(
            connection, "client_factory", lambda *args: lambda: args[2].append(network)
        )


def settings(**kafka: Any) -> Settings:
    return load({f"kafka.{name}": value for name, value in kafka.items()}, environ={}).settings


@pytest.mark.parametrize("client", CLIENTS)
def test_intervals_reach_every_client_in_milliseconds(client: Any) -> None:
    kafka = settings(reconnect_backoff=0.2, reconnect_backoff_max=7, metadata_max_age=9).kafka
    options = options_of(client, kafka)
    assert options["reconnect_backoff_ms"] == 200
    assert options["reconnect_backoff_max_ms"] == 7_000
    assert options["metadata_max_age_ms"] == 9_000


@pytest.mark.parametrize("client", CLIENTS)
def test_an_extra_option_goes_to_the_clients_that_have_it(client: Any) -> None:
    kafka = settings(extra={"retry_backoff_ms": 300, "check_crcs": False}, client_rack="a").kafka
    options = options_of(client, kafka)
    assert options["retry_backoff_ms"] == 300
    only_consumer = client is KafkaConsumer
    assert options.get("check_crcs", True) is not only_consumer
    assert options.get("client_rack") == ("a" if only_consumer else None)


def test_what_the_worker_sets_for_one_client_has_priority() -> None:
    """The wait between two transactions is part of each result's latency."""
    kafka = settings(extra={"retry_backoff_ms": 300}).kafka
    assert options_of(KafkaProducer, kafka, retry_backoff_ms=20)["retry_backoff_ms"] == 20


def test_the_audits_consumer_fetches_from_its_rack_too(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(KafkaConsumer)
    monkeypatch.setattr(connection, "KafkaConsumer", recorder)
    connect_reader(settings(client_rack="a").kafka)
    assert recorder.options["client_rack"] == "a"


def test_the_sizes_of_a_fetch_reach_the_input_consumer() -> None:
    given = settings(fetch_min_bytes=9, fetch_max_wait=0.25, fetch_max_bytes=200_000)
    options = options_of(KafkaConsumer, given.kafka, **_consumer_options(given))
    assert options["fetch_min_bytes"] == 9
    assert options["fetch_max_wait_ms"] == 250
    assert options["fetch_max_bytes"] == 200_000


def test_a_proxy_reaches_every_client() -> None:
    kafka = settings(proxy_url="socks5://me:secret@proxy:1080").kafka
    for client in CLIENTS:
        assert options_of(client, kafka)["proxy_url"] == "socks5://me:secret@proxy:1080"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_has_the_buffers(client: Any, broker: Broker) -> None:
    """Linux reports twice the size that was asked for."""
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        send_buffer_bytes=30_000,
        receive_buffer_bytes=40_000,
        extra={"retry_backoff_ms": 90},
    )
    with ExitStack() as stack:
        made = connect(client, kafka)
        stack.callback(made.close)
        assert made.config["retry_backoff_ms"] == 90
        manager = getattr(made, "_manager", None) or made._sender._client._manager
        assert manager.can_reach_a_broker(30)
        wait_until(lambda: any(conn.connected for conn in manager._conns.values()))
        transports = [c.transport for c in list(manager._conns.values()) if c.transport]
        sizes = {
            transport._sock.getsockopt(socket.SOL_SOCKET, name)
            for transport in transports
            for name in (socket.SO_SNDBUF, socket.SO_RCVBUF)
        }
        assert sizes <= {30_000, 40_000, 60_000, 80_000}
        assert len(sizes) == 2
