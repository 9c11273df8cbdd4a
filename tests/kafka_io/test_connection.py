"""Client options, translated exceptions, and the reasons of a failed connection."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, errors
from pydantic import SecretStr

from tests.conftest import Broker
from worker.errors import (
    AccessDenied,
    BrokerAway,
    Fatal,
    Fenced,
    PublishRefused,
    StreamlabelError,
    TopicMissing,
)
from worker.kafka_io import connection
from worker.kafka_io.causes import client_log
from worker.kafka_io.connection import client_options, connect
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings


@pytest.fixture(autouse=True)
def _remove_log_handler() -> Iterator[None]:
    yield
    logging.getLogger("kafka").removeHandler(client_log)


def test_plaintext_needs_no_security_options() -> None:
    """A default cluster needs only servers and timeouts; spaces between servers are ignored."""
    options = client_options(KafkaSettings(bootstrap_servers="a:1, b:2", request_timeout=4))
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert (options["request_timeout_ms"], options["bootstrap_timeout_ms"]) == (4_000, 4_000)
    assert not [name for name in options if name.startswith(("ssl_", "sasl_"))]


def test_sasl_options_reach_the_client() -> None:
    """They have the library's names, and the password is in plain text."""
    options = client_options(
        KafkaSettings(
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="me",
            sasl_password=SecretStr("secret"),
        )
    )
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "PLAIN"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "secret")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.TopicAuthorizationFailedError("t"), AccessDenied),
        (errors.SaslAuthenticationFailedError(), AccessDenied),
        (errors.UnknownTopicOrPartitionError("t"), TopicMissing),
        (errors.ProducerFencedError(), Fenced),
        (errors.InvalidProducerEpochError(), Fenced),
        (errors.FencedInstanceIdError(), Fenced),
        (errors.MessageSizeTooLargeError(), PublishRefused),
        (errors.KafkaTimeoutError("late"), BrokerAway),
        (errors.NotLeaderForPartitionError(), BrokerAway),
        (errors.CommitFailedError(), BrokerAway),
        (ConnectionResetError("gone"), BrokerAway),
        (errors.UnsupportedVersionError("old"), Fatal),
        (ValueError("unknown"), Fatal),
    ],
)
def test_each_exception_has_its_worker_error(
    error: Exception, expected: type[StreamlabelError]
) -> None:
    """An unknown exception stops the worker; every message names the exception."""
    translated = translate(error)
    assert type(translated) is expected
    assert type(error).__name__ in str(translated)


def test_the_workers_own_errors_are_unchanged() -> None:
    """An error is translated once only."""
    error = Fenced("me")
    assert translate(error) is error


def test_every_retriable_error_of_the_library_is_retried() -> None:
    """A missing topic is the exception: the user hears of it sooner than from the library."""
    retriable = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RetriableError)
    }
    not_retried = {kind for kind in retriable if not isinstance(translate(kind()), BrokerAway)}
    assert not_retried == {errors.UnknownTopicOrPartitionError, errors.UnknownTopicIdError}


def test_a_port_without_a_listener_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the timeout and by its address; the client's thread has ended."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 0.5)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it does not listen, and no other process gets the port
        server = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(BrokerAway, match=f"{server}: nothing listens there"):
            connect(KafkaAdminClient, KafkaSettings(bootstrap_servers=server))


def test_an_unknown_host_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.invalid` never has an address (RFC 2606)."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 0.5)
    with pytest.raises(BrokerAway, match="host name can't be resolved"):
        connect(KafkaConsumer, KafkaSettings(bootstrap_servers="nowhere.invalid:9092"))


@pytest.mark.parametrize(
    ("line", "expected", "advice"),
    [
        ("[Error 58] SaslAuthenticationFailedError: invalid", AccessDenied, "sasl_password"),
        ("SaslHandshake failed: UnsupportedSaslMechanismError", AccessDenied, "sasl_mechanism"),
        ("Connection lost: [Error 34] IllegalSaslStateError", AccessDenied, "does not accept SASL"),
        (
            "broker_version=(4, 3) (disconnected)>: Connection lost: socket disconnected",
            AccessDenied,
            "instead of accepting a login",
        ),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", Fatal, "ssl_cafile"),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] IP address mismatch, certificate is not valid for",
            Fatal,
            "another host name",
        ),
        ("Handshake failed: [SSL: UNEXPECTED_EOF]", BrokerAway, "TLS handshake"),
        ("broker_version=unknown>: socket disconnected", BrokerAway, "may require TLS"),
        ("Connection timed out", BrokerAway, "firewall"),
        ("something new", BrokerAway, "something new"),
    ],
)
def test_the_librarys_log_becomes_advice(
    line: str, expected: type[StreamlabelError], advice: str
) -> None:
    """The library's exception is the same for all of these."""
    client_options(KafkaSettings())
    logging.getLogger("kafka.net.manager").warning("%s", line)
    error = translate(errors.KafkaTimeoutError("Unable to bootstrap from ['a:1']"))
    assert type(error) is expected
    assert str(error).startswith("can't connect to Kafka at a:1: ")
    assert advice in str(error)


def test_each_client_starts_without_earlier_log_lines() -> None:
    client_options(KafkaSettings())
    logging.getLogger("kafka").error("SaslAuthenticationFailed")
    client_options(KafkaSettings())
    error = translate(errors.KafkaTimeoutError("Unable to bootstrap from a:1"))
    assert type(error) is BrokerAway
    assert "no response" in str(error)


def test_a_hang_up_is_no_refusal_for_settings_that_worked_before(broker: Broker) -> None:
    """A broker that shuts down hangs up as well, and on every client at once."""
    # No other test uses this client id, so the settings are new to this process.
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, client_id="let-in")
    results = [hung_up_on(settings)]
    connect(KafkaAdminClient, settings).close()
    results.append(hung_up_on(settings))
    assert list(map(type, results)) == [AccessDenied, BrokerAway]


def hung_up_on(settings: KafkaSettings) -> StreamlabelError:
    client_options(settings)
    line = "<broker_version=(4, 3)>: Connection lost: socket disconnected"
    logging.getLogger("kafka.net.manager").warning(line)
    return translate(errors.KafkaTimeoutError("Unable to bootstrap from ['a:1']"))
