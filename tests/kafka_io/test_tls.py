"""TLS of a connection: ciphers, host names, lists of revoked certificates."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaConnectionError
from kafka.net.selector import NetworkSelector

from tests.kafka_io.servers import Server, silence
from tests.support.authority import Authority
from tests.support.clocks import HandClock
from worker.errors import BrokerAway, Fatal, SettingsError, StreamlabelError
from worker.kafka_io import connection
from worker.kafka_io.connection import connect
from worker.kafka_io.network import Manager
from worker.kafka_io.tls import tls_context
from worker.settings import KafkaSettings


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 1.2)


def failure(authority: Authority, certificate: Path, **more: Any) -> StreamlabelError:
    """Return why a client does not connect; a server that never answers lets it in."""
    with Server(silence, str(certificate)) as server:
        kafka = KafkaSettings(
            bootstrap_servers=f"localhost:{server.port}",
            security_protocol="SSL",
            ssl_cafile=authority.file,
            **more,
        )
        with pytest.raises(StreamlabelError) as raised:
            connect(KafkaAdminClient, kafka)
    return raised.value


def test_a_revoked_certificate_is_refused(authority: Authority) -> None:
    certificate, _, serial = authority.pair("broker")
    refused = failure(authority, certificate, ssl_crlfile=authority.revoke(serial))
    assert type(refused) is Fatal
    assert "the broker's certificate is revoked, says kafka.ssl_crlfile" in str(refused)
    accepted = failure(authority, certificate, ssl_crlfile=authority.revoke(serial + 1))
    assert type(accepted) is BrokerAway, accepted


def test_a_list_that_has_expired_or_is_anothers_is_reported(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, *_ = authority.pair("broker")
    old = failure(authority, certificate, ssl_crlfile=authority.revoke(expired=True))
    assert type(old) is Fatal
    assert "kafka.ssl_crlfile has expired" in str(old)
    other = Authority(tmp_path, "other").revoke()
    foreign = failure(authority, certificate, ssl_crlfile=other)
    assert type(foreign) is Fatal
    assert "kafka.ssl_crlfile is another authority's" in str(foreign)


def test_a_file_without_a_list_is_refused_at_start(authority: Authority, tmp_path: Path) -> None:
    certificate, key, _ = authority.pair("broker")
    empty = tmp_path / "empty.pem"
    empty.touch()
    for file, fault in (
        (authority.file, "no list of revoked certificates in it"),
        (key, "not a list of revoked certificates in PEM format"),
        (empty, "not a list of revoked certificates in PEM format"),
    ):
        error = failure(authority, certificate, ssl_crlfile=file)
        assert type(error) is SettingsError
        assert f"kafka.ssl_crlfile = {file}: {fault}" in str(error)


def test_what_was_accepted_before_may_be_replaced(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer is made anew while an operator replaces certificates."""
    (tmp_path / "new").mkdir()
    certificate, *_ = Authority(tmp_path / "new", "new").pair("broker")
    monkeypatch.setattr(connection, "_connected", Everything())
    untrusted = failure(authority, certificate)
    assert type(untrusted) is BrokerAway
    assert "not signed by a known authority: set kafka.ssl_cafile" in str(untrusted)
    authority.file.write_text("half a certifi")
    half = failure(authority, certificate)
    assert type(half) is BrokerAway
    assert f"kafka.ssl_cafile = {authority.file}: not a certificate" in str(half)


class Everything(set[KafkaSettings]):
    """Contains what it is asked for."""

    def __contains__(self, _: object) -> bool:
        return True


def test_a_file_that_is_being_replaced_counts_as_a_lost_connection(authority: Authority) -> None:
    """A connection under way meets it: the client connects again."""
    certificate, *_ = authority.pair("broker")
    kafka = KafkaSettings(security_protocol="SSL", ssl_cafile=authority.file)
    authority.file.write_text("half a certifi")
    net = NetworkSelector()
    with Server(silence, str(certificate)) as server, contextlib.closing(net):
        manager = Manager(
            net,
            180,
            HandClock(),
            lambda: tls_context(kafka),
            security_protocol="SSL",
            bootstrap_servers=[f"localhost:{server.port}"],
        )
        (node,) = manager.cluster.bootstrap_brokers()
        with pytest.raises(KafkaConnectionError, match="not a certificate in PEM format"):
            net.run(manager._build_transport, node)


def test_a_certificate_for_another_host_needs_the_check_off(authority: Authority) -> None:
    certificate, *_ = authority.pair("broker", host="kafka.example")
    strict = failure(authority, certificate)
    assert "certificate is for another host name" in str(strict)
    assert type(failure(authority, certificate, ssl_check_hostname=False)) is BrokerAway


def test_only_the_chosen_ciphers_are_offered(authority: Authority) -> None:
    """Those of TLS 1.3 can't be chosen in this version of Python."""
    kafka = KafkaSettings(security_protocol="SSL", ssl_ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    older = [c["name"] for c in tls_context(kafka).get_ciphers() if c["protocol"] != "TLSv1.3"]
    assert older == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    certificate, *_ = authority.pair("broker")
    error = failure(authority, certificate, ssl_ciphers="NO-SUCH")
    assert type(error) is SettingsError
    assert "kafka.ssl_ciphers = 'NO-SUCH': OpenSSL knows no such cipher" in str(error)


def test_older_protocols_are_never_offered() -> None:
    context = tls_context(KafkaSettings(security_protocol="SSL"))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
