"""GSSAPI: what reaches the Kerberos library, and what is said without a ticket.

A module of the test's own stands for `gssapi`: no test has a Kerberos server, so a real sign-in has
not been tried.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient

from tests.kafka_io.servers import RefusingBroker, Server
from worker.errors import AccessDenied, BrokerAway, SettingsError, StreamlabelError
from worker.kafka_io.connection import connect
from worker.settings import KafkaSettings, load


class GSSError(Exception):
    """The base of what the library raises."""


class FakeGssapi(SimpleNamespace):
    """The parts of `gssapi` that the client library and this worker use.

    Attributes:
        names: each name that a context was asked for.
        lifetime: of the ticket, in seconds.
        fault: raised instead of returning a lifetime.
    """

    def __init__(self, lifetime: float | None = 3600, fault: Exception | None = None) -> None:
        super().__init__(
            exceptions=SimpleNamespace(GSSError=GSSError),
            NameType=SimpleNamespace(hostbased_service="hostbased"),
            MechType=SimpleNamespace(kerberos="kerberos"),
        )
        self.lifetime, self.fault, self.names = lifetime, fault, []

    def Credentials(self, usage: str) -> SimpleNamespace:  # noqa: N802 - the library's name
        assert usage == "initiate"
        if self.fault:
            raise self.fault
        return SimpleNamespace(lifetime=self.lifetime)

    class Name:
        def __init__(self, name: str, name_type: str) -> None:
            assert name_type == "hostbased"
            self.name = name

        def canonicalize(self, mechanism: str) -> Any:
            assert mechanism == "kerberos"
            return self

    def SecurityContext(self, name: Name, usage: str) -> SimpleNamespace:  # noqa: N802
        assert usage == "initiate"
        self.names.append(name.name)
        return SimpleNamespace(step=lambda _: b"ticket for " + name.name.encode(), complete=False)


def settings(**more: Any) -> KafkaSettings:
    return KafkaSettings(
        **{"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "GSSAPI"} | more
    )


def failure(kafka: KafkaSettings) -> StreamlabelError:
    with pytest.raises(StreamlabelError) as raised:
        connect(KafkaAdminClient, kafka)
    return raised.value


@pytest.mark.parametrize(
    ("options", "principal"),
    [
        ({}, "kafka@localhost"),
        ({"sasl_kerberos_service_name": "bus"}, "bus@localhost"),
        ({"sasl_kerberos_domain_name": "broker.example"}, "kafka@broker.example"),
    ],
)
def test_the_ticket_is_for_the_brokers_principal(
    options: dict[str, str], principal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, broker = FakeGssapi(), RefusingBroker("GSSAPI")
    monkeypatch.setitem(sys.modules, "gssapi", fake)
    with Server(broker) as server:
        error = failure(settings(bootstrap_servers=f"localhost:{server.port}", **options))
        assert server.connections == 1
    assert fake.names == [principal]
    assert f"ticket for {principal}".encode() in broker.requests[0]
    assert type(error) is AccessDenied
    assert "the broker refuses the Kerberos ticket: Authentication failed; check" in str(error)


@pytest.mark.parametrize(
    ("lifetime", "fault", "expected", "words"),
    [
        (0, None, AccessDenied, "the Kerberos ticket has expired: run kinit, or set KRB5_CLIENT"),
        (
            None,
            GSSError("No Kerberos credentials available"),
            AccessDenied,
            "there is no valid Kerberos ticket (No Kerberos credentials available): run kinit",
        ),
        (
            None,
            GSSError("Cannot contact any KDC for realm 'EXAMPLE'"),
            BrokerAway,
            "the Kerberos server does not answer (Cannot contact any KDC for realm 'EXAMPLE')",
        ),
    ],
)
def test_without_a_ticket_no_connection_is_made(
    lifetime: float | None,
    fault: Exception | None,
    expected: type[StreamlabelError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", FakeGssapi(lifetime, fault))
    with Server(RefusingBroker("GSSAPI")) as server:
        error = failure(settings(bootstrap_servers=f"localhost:{server.port}"))
        assert server.connections == 0
    assert type(error) is expected
    assert words in str(error)


def test_a_ticket_without_an_end_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", FakeGssapi(lifetime=None))
    with Server(RefusingBroker("GSSAPI")) as server:
        error = failure(settings(bootstrap_servers=f"localhost:{server.port}"))
        assert server.connections == 1
    assert "the broker refuses the Kerberos ticket" in str(error)


def test_a_broker_that_the_kerberos_server_does_not_know_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeGssapi()

    def unknown(**_: object) -> None:
        raise GSSError("Server kafka/localhost@EXAMPLE not found in Kerberos database")

    fake.SecurityContext = unknown
    monkeypatch.setitem(sys.modules, "gssapi", fake)
    with Server(RefusingBroker("GSSAPI")) as server:
        error = failure(settings(bootstrap_servers=f"localhost:{server.port}"))
    assert type(error) is AccessDenied
    assert "check kafka.sasl_kerberos_service_name and kafka.sasl_kerberos_domain_name" in str(
        error
    )


def test_without_the_extra_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    error = failure(settings(bootstrap_servers="a.invalid:1"))
    assert type(error) is SettingsError
    assert "needs Kerberos (libgssapi_krb5) and the extra `kerberos`: pip install" in str(error)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"sasl_mechanism": "GSSAPI", "sasl_username": "me"}, "kafka.sasl_username set, but"),
        ({"sasl_mechanism": "GSSAPI", "sasl_aws_region": "a"}, "kafka.sasl_aws_region set, but"),
        ({"sasl_mechanism": "AWS_MSK_IAM"}, "'AWS_MSK_IAM' needs kafka.security_protocol = 'SASL"),
        (
            {"sasl_mechanism": "AWS_MSK_IAM", "sasl_kerberos_domain_name": "b"},
            "kafka.sasl_kerberos_domain_name set, but",
        ),
    ],
)
def test_options_of_another_mechanism_are_refused(flags: dict[str, str], expected: str) -> None:
    given = {f"kafka.{name}": value for name, value in flags.items()}
    with pytest.raises(SettingsError) as refused:
        load(given | {"kafka.security_protocol": "SASL_PLAINTEXT"}, environ={})
    assert expected in str(refused.value)
