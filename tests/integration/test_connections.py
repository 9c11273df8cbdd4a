"""Connections: brokers that move, and firewalls that drop idle connections silently."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.chaos.proxy import Wires
from tests.conftest import Broker, Topics
from tests.support.apache import ApacheKafka, Node
from tests.support.own_kafka import admin_of, own_kafka
from tests.support.ports import free_ports
from tests.support.workers import audit, clock, count, produce, running, texts, wait_until
from worker.settings import read_environment

pytestmark = [pytest.mark.integration, pytest.mark.allow_errors]

TOPICS = Topics("in", "out", "dead", "group", 1)
DROPS_AFTER = 6.0  # seconds


def move(node: Node, port: int) -> None:
    """Restart the broker with its data on another port, as a recreated container would."""
    properties = node.folder / "server.properties"
    properties.write_text(properties.read_text().replace(f":{node.port}", f":{port}"))
    node.port = port
    node.start()
    node.wait()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_brokers_that_have_all_moved_are_found_at_the_bootstrap_servers(
    delivery: str,
) -> None:
    """No address of the last metadata answers, so the client must bootstrap again."""
    with own_kafka() as kafka, admin_of(kafka, TOPICS):
        (node,) = kafka.nodes
        (later,) = free_ports(1)
        before, after = (
            Broker(f"127.0.0.1:{port}", "apache", "its own") for port in (node.port, later)
        )
        both = replace(
            before, bootstrap_servers=f"{before.bootstrap_servers},{after.bootstrap_servers}"
        )
        with running(both, TOPICS, delivery=delivery) as worker:
            produce(before, TOPICS.input, texts(50))
            wait_until(lambda: worker.published == 50, what="it works")
            kafka.go_down()
            move(node, later)
            produce(after, TOPICS.input, texts(50, start=50))
            wait_until(lambda: count(after, TOPICS) >= 100, 90, "it has found the broker")
        verdict = audit(after, TOPICS)
        assert verdict["holds"], verdict


@contextlib.contextmanager
def through(wires: Wires) -> Iterator[ApacheKafka]:
    """A broker behind a proxy that drops idle connections."""
    home = read_environment("KAFKA_HOME")
    if not home:
        pytest.skip("needs an Apache Kafka of its own to break: set KAFKA_HOME")
    wires.slots[0].drops_after = DROPS_AFTER
    with ApacheKafka(Path(home), doors={"WIRE": wires.slots[0].ports}) as kafka:
        wires.connect([[kafka.nodes[0].listeners["WIRE"]]])
        yield kafka


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_an_idle_connection_is_closed_before_a_firewall_drops_it(delivery: str) -> None:
    """A dropped connection would cost the next record `kafka.request_timeout`."""
    with Wires(1, 1) as wires, through(wires) as kafka, admin_of(kafka, TOPICS):
        wire, target = wires.slots[0], Broker(f"127.0.0.1:{wires.slots[0].ports[0]}", "apache", "")
        direct = Broker(kafka.bootstrap_servers, "apache", "its own")
        settings = {"delivery": delivery, "kafka__connections_max_idle": 1.0}
        with running(target, TOPICS, **settings) as worker:
            for number in (1, 2):
                produce(direct, TOPICS.input, texts(1, start=number))
                wait_until(lambda: worker.published == number, 25, f"result {number}")  # noqa: B023
                clock.sleep(DROPS_AFTER + 1)
        assert wire.dropped == 0
        assert audit(direct, TOPICS)["holds"]


def test_a_late_answer_is_logged_with_the_idle_time_before_it() -> None:
    """With the defaults, only this log line explains why a record took half a minute."""
    with Wires(1, 1) as wires, through(wires) as kafka, admin_of(kafka, TOPICS):
        target = Broker(f"127.0.0.1:{wires.slots[0].ports[0]}", "apache", "")
        direct = Broker(kafka.bootstrap_servers, "apache", "its own")
        with capture_logs() as lines, running(target, TOPICS, kafka__request_timeout=6) as worker:
            produce(direct, TOPICS.input, texts(1))
            wait_until(lambda: worker.published == 1, what="the first result")
            clock.sleep(DROPS_AFTER + 1)
            produce(direct, TOPICS.input, texts(1, start=1))
            wait_until(lambda: worker.published == 2, what="the second result")
        late = [line for line in lines if line["event"].startswith("a broker's response is late")]
        assert late
        assert max(line["idle_before_s"] for line in late) > DROPS_AFTER
        assert "kafka.connections_max_idle" in late[0]["event"]
