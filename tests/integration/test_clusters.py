"""Clusters that ask for more than an address: certificates, passwords, racks, small requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.admin import UserScramCredentialUpsertion
from kafka.structs import TopicPartition

from tests.conftest import Broker, Topics
from tests.support.apache import ApacheKafka
from tests.support.authority import Authority
from tests.support.own_kafka import admin_of, named
from tests.support.workers import (
    Partitions,
    audit,
    clock,
    count,
    flags,
    needs_kafka,
    produce,
    running,
    texts,
    wait_until,
)
from worker.errors import AccessDenied, Fatal
from worker.kafka_io.connection import connect
from worker.kafka_io.source import KafkaSource
from worker.settings import KafkaSettings, load, read_environment
from worker.settings.client_extra import KINDS

TOPICS = Topics("in", "out", "dead", "group", 1)


def home() -> Path:
    folder = read_environment("KAFKA_HOME")
    if not folder:
        pytest.skip("needs an Apache Kafka of its own to break: set KAFKA_HOME")
    return Path(folder)


def mutual_tls(authority: Authority) -> ApacheKafka:
    """A broker with a second listener, which requires a client certificate."""
    certificate, *_ = authority.pair("broker")
    prefix = "listener.name.tls.ssl"
    return ApacheKafka(
        home(),
        {
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL",
            f"{prefix}.keystore.type": "PEM",
            f"{prefix}.keystore.location": str(certificate),
            f"{prefix}.truststore.type": "PEM",
            f"{prefix}.truststore.location": str(authority.file),
            f"{prefix}.client.auth": "required",
        },
        doors={"TLS": ()},
    )


def test_a_worker_signs_in_with_a_client_certificate_and_an_encrypted_key(tmp_path: Path) -> None:
    """Consumer, producer and admin client each show it; without it the broker lets no one in."""
    authority = Authority(tmp_path)
    certificate, key, _ = authority.pair("worker", password="hunter2")
    with mutual_tls(authority) as kafka, admin_of(kafka, TOPICS):
        door = Broker(f"localhost:{kafka.nodes[0].listeners['TLS']}", "apache", "its own")
        tls = {"kafka__security_protocol": "SSL", "kafka__ssl_cafile": str(authority.file)}
        pair = {
            "kafka__ssl_certfile": str(certificate),
            "kafka__ssl_keyfile": str(key),
            "kafka__ssl_key_password": "hunter2",
            "kafka__ssl_crlfile": str(authority.revoke()),
        }
        with running(door, TOPICS, **tls, **pair, delivery="exactly_once") as worker:
            produce(named(kafka), TOPICS.input, texts(20))
            wait_until(lambda: worker.published == 20, what="it has labelled them")
        assert audit(named(kafka), TOPICS)["holds"]
        stranger = KafkaSettings(
            bootstrap_servers=door.bootstrap_servers,
            security_protocol="SSL",
            ssl_cafile=authority.file,
        )
        with pytest.raises(Fatal, match="the broker requires a client certificate"):
            connect(KafkaConsumer, stranger)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_works_with_every_option_of_its_clients_changed(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    changed: dict[str, Any] = {
        "extra": {
            "api_version": "2.8",
            "check_crcs": False,
            "client_dns_lookup": "resolve_canonical_bootstrap_servers_only",
            "enable_incremental_fetch_sessions": False,
            "max_in_flight_requests_per_connection": 1,
            "receive_message_max_bytes": 2_000_000,
            "retry_backoff_ms": 50,
        },
        "fetch_min_bytes": 200,
        "fetch_max_wait": 0.3,
        "fetch_max_bytes": 200_000,
        "max_request_bytes": 500_000,
        "reconnect_backoff": 0.2,
        "reconnect_backoff_max": 1,
        "send_buffer_bytes": 30_000,
        "receive_buffer_bytes": 30_000,
        "client_rack": "nowhere",
    }
    assert set(changed["extra"]) == set(KINDS)
    needs_kafka(broker, "speaks other versions of the protocol")
    settings = {f"kafka__{name}": value for name, value in changed.items()}
    with running(broker, topics, **settings, delivery=delivery) as worker:
        produce(broker, topics.input, texts(500))
        wait_until(lambda: worker.published == 500, what="it has labelled them")
    assert worker.error is None
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_worker_signs_in_by_scram_over_tls(tmp_path: Path, name: str) -> None:
    """As at most managed clusters; a wrong password is refused."""
    authority = Authority(tmp_path)
    certificate, *_ = authority.pair("broker")
    prefix = "listener.name.tls"
    properties = {
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SASL_SSL",
        f"{prefix}.ssl.keystore.type": "PEM",
        f"{prefix}.ssl.keystore.location": str(certificate),
        f"{prefix}.sasl.enabled.mechanisms": name,
        f"{prefix}.{name.lower()}.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    user = UserScramCredentialUpsertion("labeller", name, "hunter2")
    with ApacheKafka(home(), properties, doors={"TLS": ()}) as kafka, admin_of(kafka, TOPICS) as a:
        assert a.alter_user_scram_credentials([user]) == {"labeller": None}
        door = Broker(f"localhost:{kafka.nodes[0].listeners['TLS']}", "apache", "its own")
        settings = {
            "kafka__security_protocol": "SASL_SSL",
            "kafka__sasl_mechanism": name,
            "kafka__sasl_username": "labeller",
            "kafka__ssl_cafile": str(authority.file),
        }
        with running(door, TOPICS, **settings, kafka__sasl_password="hunter2") as worker:
            produce(named(kafka), TOPICS.input, texts(20))
            wait_until(lambda: worker.published == 20, what="it has labelled them")
        with running(door, TOPICS, **settings, kafka__sasl_password="wrong") as worker:
            worker.join()
        assert isinstance(worker.error, AccessDenied)
        assert "the broker refuses the credentials" in str(worker.error)


def test_the_input_is_fetched_from_the_replica_in_the_workers_rack() -> None:
    """Traffic between availability zones costs money."""
    selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
    with (
        ApacheKafka(home(), {"replica.selector.class": selector}, brokers=2) as kafka,
        admin_of(kafka, TOPICS) as admin,
    ):
        (partition,) = admin.describe_topics([TOPICS.input])[0]["partitions"]
        follower = 3 - partition["leader_id"]
        rack = {"kafka.client_rack": f"rack-{follower}"}
        settings = load(flags(named(kafka), TOPICS) | rack, environ={}).settings
        produce(named(kafka), TOPICS.input, texts(50))
        source = KafkaSource(settings, Partitions(), clock)
        records, replicas = 0, set()
        state = consumer_state(source)
        while records < 50 or replicas != {follower}:
            records += len(source.poll(0.2, 10))
            if read := state.assignment.get(TopicPartition(TOPICS.input, 0)):
                replicas |= {read.preferred_read_replica()} - {None}
        source.close(5)
    assert records == 50


def consumer_state(source: KafkaSource) -> Any:
    """Return the library's state of the assigned partitions."""
    return source._consumer._subscription


def test_a_broker_that_closes_the_connection_of_a_large_request_gets_none() -> None:
    """As Azure Event Hubs does; without the setting, the worker would send it without end."""
    topics = replace(TOPICS, partitions=4)
    limit, most = "socket.request.max.bytes", 100_000
    with ApacheKafka(home(), {limit: str(most)}) as kafka, admin_of(kafka, topics):
        many, large = texts(40, more="x" * 20_000), texts(1, start=40, more="x" * 150_000)
        for records in (many, large):
            produce(named(kafka), topics.input, records, compression_type="gzip")
        settings = {"kafka__max_request_bytes": most - 5_000, "output__mode": "enrich"}
        with running(named(kafka), topics, **settings) as worker:
            wait_until(lambda: count(named(kafka), topics) == 41, what="each has an outcome")
        assert worker.error is None
        reason = {"reason": "result_too_large"}
        assert worker.value("streamlabel_records_dead_lettered_total", **reason) == 1
        assert audit(named(kafka), topics)["holds"]
