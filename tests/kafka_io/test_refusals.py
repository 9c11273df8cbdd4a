"""Why a client does not get in: each cause is told as itself, with what to do, and tried once."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaConnectionError, SaslAuthenticationFailedError
from kafka.net.selector import NetworkSelector
from pydantic import SecretStr

from tests.conftest import Broker
from tests.kafka_io.servers import (
    AUTHORITY,
    CERTIFICATES,
    Handler,
    Server,
    broker_that_refuses,
    broker_without_login,
    http,
    silence,
)
from tests.support.clocks import HandClock
from worker.errors import AccessDenied, BrokerAway, Fatal, SettingsError, StreamlabelError
from worker.kafka_io import connection
from worker.kafka_io.causes import Diagnosis, client_log, permanent_failure
from worker.kafka_io.connection import connect
from worker.kafka_io.network import Manager
from worker.kafka_io.probe import diagnose, unreachable
from worker.kafka_io.tls import check_files
from worker.settings import KafkaSettings

PLAIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "me",
    "sasl_password": SecretStr("wrong"),
}
TLS = {"security_protocol": "SSL", "ssl_cafile": AUTHORITY}


@pytest.fixture(autouse=True)
def _no_handler_is_left() -> Iterator[None]:
    yield
    logging.getLogger("kafka").removeHandler(client_log)


@pytest.fixture
def net() -> Iterator[NetworkSelector]:
    made = NetworkSelector()
    yield made
    made.close()


def refused(port: int, host: str = "localhost", **more: Any) -> StreamlabelError:
    settings = KafkaSettings(bootstrap_servers=f"{host}:{port}", **more)
    with pytest.raises(StreamlabelError) as told:
        connect(KafkaAdminClient, settings)
    return told.value


def test_a_wrong_password_is_tried_once() -> None:
    """By a process. Each further try is one step on to an account that is locked."""
    with Server(broker_that_refuses) as server:
        for _ in range(2):  # `check` has several parts
            error = refused(server.port, **PLAIN)
            assert type(error) is AccessDenied
            assert "the broker refuses the credentials: check kafka.sasl_username" in str(error)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ("expired.pem", "certificate has expired"),
        ("early.pem", "certificate is not valid yet: check this machine's clock"),
    ],
)
def test_a_certificate_out_of_its_time_is_told_as_that(certificate: str, words: str) -> None:
    with Server(silence, certificate) as server:
        error = refused(server.port, **TLS)
        assert type(error) is Fatal
        assert words in str(error)
        assert server.connections == 1


def test_one_server_with_a_bad_certificate_keeps_nobody_from_the_others(
    net: NetworkSelector,
) -> None:
    """A password is the same everywhere, a certificate is one broker's."""
    manager = Manager(net, 180, HandClock(), bootstrap_servers=["a:1", "b:2"])
    bad, wrong = KafkaConnectionError("certificate has expired"), SaslAuthenticationFailedError()
    for node, failure, refuses in (
        ("bootstrap-0", bad, False),
        ("bootstrap-0", bad, False),
        ("bootstrap-1", bad, True),
    ):
        manager._note_refusal(node, refusal_of(failure), failure)
        assert (manager._refusal is failure) is refuses
    other = Manager(net, 180, HandClock(), bootstrap_servers=["a:1", "b:2"])
    other._note_refusal("bootstrap-0", refusal_of(wrong), wrong)
    assert other._refusal is wrong


def refusal_of(failure: Exception) -> Diagnosis:
    verdict = permanent_failure(str(failure))
    assert verdict
    return verdict


def test_an_authority_that_is_not_known_is_told() -> None:
    with Server(silence, "valid.pem") as server:
        error = refused(server.port, security_protocol="SSL")
    assert type(error) is Fatal
    assert "not signed by a known authority: set kafka.ssl_cafile" in str(error)


@pytest.mark.parametrize(
    ("handler", "certificate", "settings", "meaning", "words"),
    [
        (http, None, {}, Fatal, "an HTTP server answers"),
        (http, None, TLS, Fatal, "an HTTP server answers"),
        (http, "valid.pem", TLS, Fatal, "an HTTP server answers"),
        (broker_without_login, "valid.pem", {}, Fatal, "this port uses TLS: set"),
        (broker_without_login, None, TLS, Fatal, "this port does not use TLS: set"),
        (broker_that_refuses, None, {}, AccessDenied, "requires a login (PLAIN): set"),
        (broker_that_refuses, "valid.pem", TLS, AccessDenied, "to SASL_SSL, and kafka.sasl"),
        (broker_without_login, None, PLAIN, AccessDenied, "this port does not accept SASL"),
    ],
)
def test_a_port_that_is_another_one_is_told_as_what_it_is(
    handler: Handler,
    certificate: str | None,
    settings: dict[str, Any],
    meaning: type[StreamlabelError],
    words: str,
) -> None:
    with Server(handler, certificate) as server:
        error = refused(server.port, **settings)
    assert type(error) is meaning
    assert words in str(error)


def test_a_port_that_says_nothing_is_no_certain_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come up yet: nothing is refused, and a TLS handshake ends as well."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 1.5)
    with Server(silence) as server:
        errors = [refused(server.port), refused(server.port, **TLS)]
    assert [type(error) for error in errors] == [BrokerAway, BrokerAway]


def test_a_broker_that_speaks_as_it_should_is_no_cause(broker: Broker) -> None:
    assert diagnose(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ssl_cafile": CERTIFICATES / "make.sh"}, "make.sh: not a certificate in PEM format"),
        ({"ssl_cafile": CERTIFICATES / "encrypted.pem"}, "not a certificate in PEM format"),
        (
            {"ssl_certfile": CERTIFICATES / "valid.pem", "ssl_keyfile": CERTIFICATES / "early.pem"},
            "early.pem: the key does not belong to the certificate kafka.ssl_certfile",
        ),
        (
            {
                "ssl_certfile": CERTIFICATES / "valid.pem",
                "ssl_keyfile": CERTIFICATES / "encrypted.pem",
            },
            "encrypted.pem: the key is encrypted, and kafka.ssl_key_password is not set",
        ),
        (
            {
                "ssl_certfile": CERTIFICATES / "valid.pem",
                "ssl_keyfile": CERTIFICATES / "encrypted.pem",
                "ssl_key_password": SecretStr("wrong"),
            },
            "encrypted.pem: the key is encrypted, and kafka.ssl_key_password does not decrypt it",
        ),
        ({"ssl_certfile": CERTIFICATES / "make.sh"}, "not a certificate and key in PEM format"),
    ],
)
def test_a_file_of_tls_that_can_not_be_used_is_told_before_anybody_is_asked(
    files: dict[str, Any], words: str
) -> None:
    """OpenSSL itself would ask for the key's password on the terminal."""
    with Server(silence) as server:
        error = refused(server.port, security_protocol="SSL", **files)
        assert type(error) is SettingsError
        assert words in str(error)
        assert server.connections == 0


def test_an_address_that_clients_can_not_use_is_named() -> None:
    with Server(silence) as there, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else's
        gone = taken.getsockname()[1]
        told = unreachable(
            [
                (1, "nowhere.invalid", 9092),
                (2, "127.0.0.1", gone),
                (3, "127.0.0.1", there.port),
            ]
        )
    assert len(told) == 2
    assert told[0].startswith(
        "broker 1 sends clients to nowhere.invalid:9092, which can't be resolved here: set "
        "advertised.listeners"
    )
    assert told[1].startswith(f"broker 2 sends clients to 127.0.0.1:{gone}, where nothing listens")


def test_a_key_that_its_password_opens_is_accepted() -> None:
    check_files(
        KafkaSettings(
            security_protocol="SSL",
            ssl_cafile=AUTHORITY,
            ssl_certfile=CERTIFICATES / "valid.pem",
            ssl_keyfile=CERTIFICATES / "encrypted.pem",
            ssl_key_password=SecretStr("password"),
        )
    )
