"""TLS of a connection: ciphers, host names, lists of revoked certificates."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from tests.kafka_io.servers import Server, silence
from tests.support.authority import Authority
from worker.errors import BrokerAway, Fatal, SettingsError, StreamlabelError
from worker.kafka_io import connection
from worker.kafka_io.connection import connect
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
