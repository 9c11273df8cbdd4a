"""AWS_MSK_IAM: signed tokens, where their credentials come from, and what is said without them.

No test reaches AWS: credentials are made up, and a server on loopback stands for STS.
"""

from __future__ import annotations

import base64
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kafka import KafkaAdminClient

from tests.kafka_io.servers import AUTHORITY, RefusingBroker, Server
from tests.support.clocks import HandClock
from worker.clock import SystemClock
from worker.errors import AccessDenied, BrokerAway, SettingsError
from worker.kafka_io.connection import connect
from worker.kafka_io.msk import MskTokens
from worker.settings import KafkaSettings

PROFILES = """\
[profile other]
region = eu-west-1
aws_access_key_id = AKIDOTHER
aws_secret_access_key = secret
[profile half]
region = eu-west-1
aws_access_key_id = AKIDHALF
"""
ROLE = "arn:aws:iam::123456789012:role/labeller"
ASSUMED = """\
<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleResult></AssumeRoleResponse>"""
DENIED = """\
<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>
<Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>"""


@pytest.fixture(autouse=True)
def _aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up credentials, and nothing of the machine's own."""
    config = tmp_path / "config"
    config.write_text(PROFILES)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "AKIDTEST",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }.items():
        monkeypatch.setenv(name, value)


def settings(**more: Any) -> KafkaSettings:
    return KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="AWS_MSK_IAM", **more)


def url_of(token: str) -> tuple[str, dict[str, str]]:
    """Return the address and the query of a token."""
    padded = token + "=" * (-len(token) % 4)
    parts = urlsplit(base64.urlsafe_b64decode(padded).decode())
    address = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return address, {name: values[0] for name, values in parse_qs(parts.query).items()}


def test_a_token_is_a_signed_url_of_the_region() -> None:
    clock = SystemClock()
    token = MskTokens(settings(sasl_aws_region="eu-north-1"), clock).fetch()
    address, query = url_of(token.value)
    assert address == "https://kafka.eu-north-1.amazonaws.com/"
    assert query["Action"] == "kafka-cluster:Connect"
    assert query["X-Amz-Expires"] == "900"
    assert query["X-Amz-Credential"].startswith("AKIDTEST/")
    assert query["X-Amz-Credential"].endswith("/eu-north-1/kafka-cluster/aws4_request")
    assert len(query["X-Amz-Signature"]) == 64
    assert token.life is not None
    assert 880 < token.life <= 900
    assert "=" not in token.value
    assert "hunter2" not in repr(token)


@pytest.mark.parametrize(
    ("variables", "options", "region"),
    [
        ({"AWS_REGION": "a-1", "AWS_DEFAULT_REGION": "b-1"}, {}, "a-1"),
        ({"AWS_DEFAULT_REGION": "b-1"}, {}, "b-1"),
        ({"AWS_REGION": "a-1"}, {"sasl_aws_region": "c-1"}, "c-1"),
        ({}, {"sasl_aws_profile": "other"}, "eu-west-1"),
        ({"AWS_PROFILE": "other"}, {}, "eu-west-1"),
    ],
)
def test_the_region_is_the_settings_or_that_of_aws(
    variables: dict[str, str],
    options: dict[str, str],
    region: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    token = MskTokens(settings(**options), HandClock()).fetch()
    assert url_of(token.value)[0] == f"https://kafka.{region}.amazonaws.com/"


def test_a_profile_has_its_own_credentials() -> None:
    token = MskTokens(settings(sasl_aws_profile="other"), HandClock()).fetch()
    assert url_of(token.value)[1]["X-Amz-Credential"].startswith("AKIDOTHER/")


def sts(status: str, body: str) -> Server:
    def answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())

    return Server(answer)


def test_a_role_is_taken_on_once_and_its_credentials_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    with sts("200 OK", ASSUMED) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.port}")
        tokens = MskTokens(settings(sasl_aws_region="a-1", sasl_aws_role_arn=ROLE), HandClock())
        queries = [url_of(tokens.fetch().value)[1] for _ in range(2)]
        assert server.connections == 1
    for query in queries:
        assert query["X-Amz-Credential"].startswith("AKIDROLE/")
        assert query["X-Amz-Security-Token"] == "session"


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        ("403 Forbidden", DENIED, AccessDenied, "AWS refuses: AccessDenied: not authorized to"),
        ("503 Service Unavailable", "", BrokerAway, "AWS refuses: 503"),
        ("400 Bad Request", DENIED.replace("AccessDenied", "Throttling"), BrokerAway, "Throttling"),
    ],
)
def test_a_role_that_is_refused_stops_the_worker_and_an_outage_does_not(
    status: str,
    body: str,
    expected: type[Exception],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sts(status, body) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.port}")
        tokens = MskTokens(settings(sasl_aws_region="a-1", sasl_aws_role_arn=ROLE), HandClock())
        with pytest.raises(expected, match=words):
            tokens.fetch()


def test_an_unreachable_sts_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it does not listen, and no other process gets the port
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", address)
        tokens = MskTokens(settings(sasl_aws_region="a-1", sasl_aws_role_arn=ROLE), HandClock())
        with pytest.raises(BrokerAway, match="no AWS credentials at this time: Could not connect"):
            tokens.fetch()


def test_without_a_region_or_the_profile_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingsError, match=r"set kafka\.sasl_aws_region or AWS_REGION"):
        MskTokens(settings(), HandClock())
    with pytest.raises(
        SettingsError, match=r"kafka\.sasl_aws_profile: .*\(no\) could not be found"
    ):
        MskTokens(settings(sasl_aws_profile="no"), HandClock())
    monkeypatch.setenv("AWS_PROFILE", "no")
    with pytest.raises(SettingsError, match=r"AWS_PROFILE: .*\(no\) could not be found"):
        MskTokens(settings(), HandClock())


def test_without_credentials_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    half = MskTokens(settings(sasl_aws_profile="half"), HandClock())
    with pytest.raises(AccessDenied, match="no AWS credentials: Partial credentials"):
        half.fetch()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    none = MskTokens(settings(sasl_aws_region="a-1"), HandClock())
    with pytest.raises(AccessDenied, match="there are no AWS credentials: set AWS_PROFILE or"):
        none.fetch()


def test_without_the_extra_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "worker.kafka_io.msk")
    monkeypatch.setitem(sys.modules, "botocore", None)
    # No other test uses this client id, so the settings are new to this process.
    with pytest.raises(
        SettingsError, match=r"needs the extra `aws`: pip install 'streamlabel\[aws"
    ):
        connect(KafkaAdminClient, settings(client_id="no-extra"))


def test_the_token_is_sent_by_oauthbearer_and_a_refusal_is_explained() -> None:
    """Against a broker of the test's own; a real one of Amazon has not been tried."""
    broker = RefusingBroker("OAUTHBEARER")
    with Server(broker, "valid.pem") as server:
        kafka = settings(
            bootstrap_servers=f"localhost:{server.port}",
            ssl_cafile=AUTHORITY,
            sasl_aws_region="eu-north-1",
        )
        with pytest.raises(AccessDenied) as raised:
            connect(KafkaAdminClient, kafka)
        assert server.connections == 1
    (request,) = broker.requests
    _, _, rest = request.partition(b"n,,\x01auth=Bearer ")
    token, _, end = rest.partition(b"\x01")
    assert end == b"\x01"
    assert url_of(token.decode())[0] == "https://kafka.eu-north-1.amazonaws.com/"
    assert str(raised.value) == (
        f"can't connect to Kafka at localhost:{server.port}: the broker refuses the AWS "
        "credentials: Authentication failed; check kafka.sasl_aws_region, this machine's clock, "
        "and that a policy allows kafka-cluster:Connect"
    )
