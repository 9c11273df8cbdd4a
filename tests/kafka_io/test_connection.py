"""Client options, the meaning of the library's exceptions, and why a connection failed."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

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
def _no_handler_is_left() -> Iterator[None]:
    yield
    logging.getLogger("kafka").removeHandler(client_log)


def test_plain_options_name_no_security() -> None:
    """A default cluster needs servers and timeouts alone; spaces between servers are no matter."""
    options = client_options(KafkaSettings(bootstrap_servers="a:1, b:2", request_timeout=4))
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert (options["request_timeout_ms"], options["bootstrap_timeout_ms"]) == (4_000, 4_000)
    assert not [name for name in options if name.startswith(("ssl_", "sasl_"))]


def test_tls_and_sasl_reach_the_client(tmp_path: Path) -> None:
    """Under the library's names, the password in the clear."""
    authority = tmp_path / "ca.pem"
    authority.touch()
    options = client_options(
        KafkaSettings(
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="me",
            sasl_password=SecretStr("secret"),
            ssl_cafile=authority,
        )
    )
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "PLAIN"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "secret")
    assert options["ssl_cafile"] == str(authority)


@pytest.mark.parametrize(
    ("error", "meaning"),
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
        (ValueError("what is this"), Fatal),
    ],
)
def test_an_exception_means_what_the_worker_does_about_it(
    error: Exception, meaning: type[StreamlabelError]
) -> None:
    """Each branch of the tree; the unknown stops the worker, and the error is named."""
    found = translate(error)
    assert type(found) is meaning
    assert type(error).__name__ in str(found)


def test_our_own_errors_pass() -> None:
    """What was translated once is not translated again."""
    ours = Fenced("me")
    assert translate(ours) is ours


def test_every_retriable_error_of_the_library_is_tried_again() -> None:
    """But for a topic that is not there: the user is told sooner than the library would."""
    retriable = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RetriableError)
    }
    others = {kind for kind in retriable if not isinstance(translate(kind()), BrokerAway)}
    assert others == {errors.UnknownTopicOrPartitionError, errors.UnknownTopicIdError}


def test_a_port_where_nobody_listens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the bound, by name, and the client's thread is gone."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else's
        server = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BrokerAway, match=f"{server}: nothing listens there"):
            connect(KafkaAdminClient, KafkaSettings(bootstrap_servers=server))


def test_a_host_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.invalid` has no addresses by agreement (RFC 2606)."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 0.5)
    with pytest.raises(BrokerAway, match="host name can't be resolved"):
        connect(KafkaConsumer, KafkaSettings(bootstrap_servers="nowhere.invalid:9092"))


@pytest.mark.parametrize(
    ("complaint", "meaning", "advice"),
    [
        ("[Error 58] SaslAuthenticationFailedError: invalid", AccessDenied, "sasl_password"),
        ("SaslHandshake failed: UnsupportedSaslMechanismError", AccessDenied, "sasl_mechanism"),
        ("Connection lost: [Error 34] IllegalSaslStateError", AccessDenied, "does not accept SASL"),
        (
            "broker_version=(4, 3) (disconnected)>: Connection lost: socket disconnected",
            AccessDenied,
            "closes the connection instead of a login",
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
def test_what_the_librarys_log_says_becomes_advice(
    complaint: str, meaning: type[StreamlabelError], advice: str
) -> None:
    """The library's own error is the same for all of these."""
    client_options(KafkaSettings())
    logging.getLogger("kafka.net.manager").warning("%s", complaint)
    found = translate(errors.KafkaTimeoutError("Unable to bootstrap from ['a:1']"))
    assert type(found) is meaning
    assert str(found).startswith("can't connect to Kafka at a:1: ")
    assert advice in str(found)


def test_an_older_clients_trouble_is_not_told_again() -> None:
    """Each client starts to listen anew."""
    client_options(KafkaSettings())
    logging.getLogger("kafka").error("SaslAuthenticationFailed")
    client_options(KafkaSettings())
    found = translate(errors.KafkaTimeoutError("Unable to bootstrap from a:1"))
    assert type(found) is BrokerAway
    assert "no response" in str(found)


def test_who_was_let_in_before_is_not_refused_because_a_broker_hangs_up(broker: Broker) -> None:
    """A broker that goes down hangs up as well, and on every client at once."""
    # A name that no other test's client has: these settings are new to this process.
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, client_id="let-in")
    found = [hung_up_on(settings)]
    connect(KafkaAdminClient, settings).close()
    found.append(hung_up_on(settings))
    assert list(map(type, found)) == [AccessDenied, BrokerAway]


def hung_up_on(settings: KafkaSettings) -> StreamlabelError:
    client_options(settings)
    told = "<broker_version=(4, 3)>: Connection lost: socket disconnected"
    logging.getLogger("kafka.net.manager").warning(told)
    return translate(errors.KafkaTimeoutError("Unable to bootstrap from ['a:1']"))
