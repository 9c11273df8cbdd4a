"""Each cause of a failed connection is reported with advice, and tried once if permanent."""

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
from worker.kafka_io.tls import tls_context
from worker.settings import KafkaSettings

PLAIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "me",
    "sasl_password": SecretStr("wrong"),
}
TLS = {"security_protocol": "SSL", "ssl_cafile": AUTHORITY}


@pytest.fixture(autouse=True)
def _remove_log_handler() -> Iterator[None]:
    yield
    logging.getLogger("kafka").removeHandler(client_log)


@pytest.fixture
def net() -> Iterator[NetworkSelector]:
    made = NetworkSelector()
    yield made
    made.close()


def connect_error(port: int, host: str = "localhost", **more: Any) -> StreamlabelError:
    settings = KafkaSettings(bootstrap_servers=f"{host}:{port}", **more)
    with pytest.raises(StreamlabelError) as raised:
        connect(KafkaAdminClient, settings)
    return raised.value


def test_a_wrong_password_is_tried_once() -> None:
    """Once in a process: each further try is one step closer to a locked account."""
    with Server(broker_that_refuses) as server:
        for _ in range(2):  # `check` makes several clients
            error = connect_error(server.port, **PLAIN)
            assert type(error) is AccessDenied
            assert "the broker refuses the credentials: check kafka.sasl_username" in str(error)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        ("expired.pem", "certificate has expired"),
        ("early.pem", "certificate is not valid yet: check this machine's clock"),
    ],
)
def test_an_expired_or_early_certificate_is_reported(certificate: str, message: str) -> None:
    with Server(silence, certificate) as server:
        error = connect_error(server.port, **TLS)
        assert type(error) is Fatal
        assert message in str(error)
        assert server.connections == 1


def test_a_bad_certificate_of_one_server_does_not_stop_the_others(
    net: NetworkSelector,
) -> None:
    """All brokers have one password, but each has its own certificate."""
    manager = Manager(net, 180, HandClock(), bootstrap_servers=["a:1", "b:2"])
    expired = KafkaConnectionError("certificate has expired")
    wrong_password = SaslAuthenticationFailedError()
    for node, failure, final in (
        ("bootstrap-0", expired, False),
        ("bootstrap-0", expired, False),
        ("bootstrap-1", expired, True),
    ):
        manager._note_refusal(node, diagnosis_of(failure), failure)
        assert (manager._refusal is failure) is final
    other = Manager(net, 180, HandClock(), bootstrap_servers=["a:1", "b:2"])
    other._note_refusal("bootstrap-0", diagnosis_of(wrong_password), wrong_password)
    assert other._refusal is wrong_password


def diagnosis_of(failure: Exception) -> Diagnosis:
    diagnosis = permanent_failure(str(failure))
    assert diagnosis
    return diagnosis


def test_an_unknown_certificate_authority_is_reported() -> None:
    with Server(silence, "valid.pem") as server:
        error = connect_error(server.port, security_protocol="SSL")
    assert type(error) is Fatal
    assert "not signed by a known authority: set kafka.ssl_cafile" in str(error)


@pytest.mark.parametrize(
    ("handler", "certificate", "settings", "expected", "message"),
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
def test_a_wrong_port_is_reported_with_what_it_is(
    handler: Handler,
    certificate: str | None,
    settings: dict[str, Any],
    expected: type[StreamlabelError],
    message: str,
) -> None:
    with Server(handler, certificate) as server:
        error = connect_error(server.port, **settings)
    assert type(error) is expected
    assert message in str(error)


def test_a_silent_port_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may still be starting; a TLS handshake times out as well."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 1.5)
    with Server(silence) as server:
        errors = [connect_error(server.port), connect_error(server.port, **TLS)]
    assert [type(error) for error in errors] == [BrokerAway, BrokerAway]


def test_a_working_broker_has_no_diagnosis(broker: Broker) -> None:
    assert diagnose(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) is None


@pytest.mark.parametrize(
    ("files", "message"),
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
def test_a_bad_tls_file_is_reported_before_any_connection(
    files: dict[str, Any], message: str
) -> None:
    """OpenSSL would ask for the key's password on the terminal."""
    with Server(silence) as server:
        error = connect_error(server.port, security_protocol="SSL", **files)
        assert type(error) is SettingsError
        assert message in str(error)
        assert server.connections == 0


def test_an_unreachable_advertised_address_is_reported() -> None:
    with Server(silence) as server, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it does not listen, and no other process gets the port
        closed_port = bound.getsockname()[1]
        faults = unreachable(
            [
                (1, "nowhere.invalid", 9092),
                (2, "127.0.0.1", closed_port),
                (3, "127.0.0.1", server.port),
            ]
        )
    assert len(faults) == 2
    assert faults[0].startswith(
        "broker 1 sends clients to nowhere.invalid:9092, which can't be resolved here: set "
        "advertised.listeners"
    )
    assert faults[1].startswith(
        f"broker 2 sends clients to 127.0.0.1:{closed_port}, where nothing listens"
    )


def test_an_encrypted_key_with_its_password_is_accepted() -> None:
    tls_context(
        KafkaSettings(
            security_protocol="SSL",
            ssl_cafile=AUTHORITY,
            ssl_certfile=CERTIFICATES / "valid.pem",
            ssl_keyfile=CERTIFICATES / "encrypted.pem",
            ssl_key_password=SecretStr("password"),
        )
    )
