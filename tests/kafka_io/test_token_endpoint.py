"""A token endpoint: what it is sent, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from kafka import KafkaAdminClient
from pydantic import SecretStr

from tests.kafka_io.servers import (
    AUTHORITY,
    Handler,
    Server,
    broker_that_refuses_tokens,
    silence,
)
from tests.support.clocks import HandClock
from tests.support.oauth import CLIENT, SECRET, Endpoint, Issuer
from worker.clock import SystemClock
from worker.errors import AccessDenied, BrokerAway, Fatal, SettingsError, StreamlabelError
from worker.kafka_io import token_endpoint
from worker.kafka_io.connection import connect
from worker.kafka_io.token_endpoint import TokenEndpoint
from worker.settings import KafkaSettings


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def endpoint(issuer: Issuer) -> Iterator[Endpoint]:
    with Endpoint(issuer) as running:
        yield running


def settings(endpoint: Endpoint, **more: Any) -> KafkaSettings:
    options = {name.removeprefix("kafka__"): value for name, value in endpoint.options.items()}
    return KafkaSettings(**options | more)


def client_of(endpoint: Endpoint, **more: Any) -> TokenEndpoint:
    return TokenEndpoint(settings(endpoint, **more), SystemClock())


def failure(endpoint: Endpoint, **more: Any) -> StreamlabelError:
    with pytest.raises(StreamlabelError) as raised:
        client_of(endpoint, **more).fetch()
    assert endpoint.url in str(raised.value)
    assert SECRET not in str(raised.value)
    return raised.value


# -- the request -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["basic", "post"])
def test_the_client_is_known_by_its_id_and_secret(endpoint: Endpoint, how: str) -> None:
    """The secret of the tests has characters that the header must encode."""
    token = client_of(
        endpoint,
        sasl_oauth_client_auth=how,
        sasl_oauth_parameters={"audience": "kafka", "resource": "a b"},
    ).fetch()
    (form,) = endpoint.asked
    login = {"client_id": CLIENT, "client_secret": SECRET} if how == "post" else {}
    assert form == login | {
        "grant_type": "client_credentials",
        "scope": "kafka",
        "audience": "kafka",
        "resource": "a b",
    }
    assert token.life == 60
    assert token.value.count(".") == 2


def test_the_grant_can_be_another_one(endpoint: Endpoint) -> None:
    """Some issuers ask for a grant of their own."""
    client_of(
        endpoint, sasl_oauth_scope=None, sasl_oauth_parameters={"grant_type": "urn:x"}
    ).fetch()
    assert endpoint.asked == [{"grant_type": "urn:x"}]


# -- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "life"),
    [
        ({"expires_in": 3600}, 3600.0),
        ({"expires_in": "3600"}, 3600.0),
        ({"expires_in": "soon"}, None),
        ({"expires_in": None}, None),
        ({}, None),
    ],
)
def test_the_life_of_a_token_is_read(
    endpoint: Endpoint, fields: dict[str, Any], life: float | None
) -> None:
    endpoint.answer = 200, json.dumps({"access_token": "opaque"} | fields).encode()
    assert client_of(endpoint).fetch().life == life


@pytest.mark.parametrize("claims", [{}, {"iat": None}])
def test_without_a_stated_life_the_claims_tell_it(
    endpoint: Endpoint, issuer: Issuer, claims: dict[str, Any]
) -> None:
    endpoint.answer = 200, json.dumps({"access_token": issuer.token(100, **claims)}).encode()
    life = client_of(endpoint).fetch().life
    assert life is not None
    assert life == pytest.approx(100, abs=30)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_client_is_told_in_the_endpoints_words(endpoint: Endpoint, status: int) -> None:
    words = {"error": "invalid_client", "error_description": f"no\n\x1b secret {SECRET}"}
    endpoint.answer = status, json.dumps(words).encode()
    error = failure(endpoint)
    assert type(error) is AccessDenied
    expected = (
        f"refuses the client 'labeller' (HTTP {status}, invalid_client: no [U+001B] secret ***)"
    )
    assert expected in str(error)
    assert "check kafka.sasl_oauth_client_id" in str(error)


def test_no_form_of_a_secret_is_told(endpoint: Endpoint) -> None:
    """An endpoint may repeat the request, whose fields are encoded."""
    parameters = {"client_assertion": "a b+c", "empty": ""}
    forms = [SECRET, quote_plus(SECRET), "a b+c", quote_plus("a b+c")]
    endpoint.answer = 401, json.dumps({"error": " | ".join(["no", *forms])}).encode()
    error = failure(endpoint, sasl_oauth_parameters=parameters)
    assert "(HTTP 401, no | *** | *** | *** | ***)" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>", "gives no token (not JSON)"),
        (200, b"[" * 200_000, "gives no token (not JSON)"),
        (200, b"\xff", "gives no token (not JSON)"),
        (200, b"x" * 300_000, "its answer is larger than 262144 bytes"),
        (200, b"[]", "answers without an access_token"),
        (200, b'{"access_token": 1}', "answers without an access_token"),
        (200, b'{"token": "x"}', "answers without an access_token"),
        (200, b'{"access_token": ""}', "gives an access_token that is empty"),
        (200, b'{"access_token": "a\\u0001b"}', "has characters that no token has"),
        (200, b'{"access_token": "a", "expires_in": 0}', "a token that has ended (life: 0 s)"),
        (302, b"", "gives no token (HTTP 302)"),
        (404, b"<html>", "gives no token (HTTP 404)"),
        (429, b'{"error": "slow_down"}', "gives no token (HTTP 429, slow_down)"),
        (503, b"null", "gives no token (HTTP 503)"),
    ],
)
def test_an_answer_without_a_token_is_retried(
    endpoint: Endpoint, status: int, body: bytes, expected: str
) -> None:
    endpoint.answer = status, body
    error = failure(endpoint)
    assert type(error) is BrokerAway
    assert expected in str(error)


def test_an_endpoint_that_is_away_is_retried(endpoint: Endpoint) -> None:
    endpoint.go_down()
    error = failure(endpoint)
    assert type(error) is BrokerAway
    assert "does not answer" in str(error)


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (silence, "does not answer"),
        (lambda connection: connection.sendall(_HEAD + b"x" * 10), "does not answer"),
    ],
)
def test_an_answer_that_never_ends_is_given_up(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, handler: Handler, expected: str
) -> None:
    monkeypatch.setattr(token_endpoint, "_TIMEOUT", 0.2)
    with Server(handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.port}/token"
        error = failure(endpoint)
    assert type(error) is BrokerAway
    assert expected in str(error)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"


def test_an_answer_that_drips_is_given_up(endpoint: Endpoint) -> None:
    """Each byte comes in time, and the whole answer does not."""

    class Hasty(HandClock):
        def monotonic(self) -> float:
            self.now += 6
            return self.now

    with pytest.raises(BrokerAway, match="its answer takes longer than 5 s"):
        TokenEndpoint(settings(endpoint), Hasty()).fetch()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ALL_PROXY", "socks5://me:hunter2@proxy:1080", "needs the package socksio: install it"),
        (
            "ALL_PROXY",
            "ftp://me:hunter2@proxy:21",
            "has no usable address: HTTPS_PROXY, HTTP_PROXY",
        ),
        (
            "HTTPS_PROXY",
            "http://me:hunter2/x@proxy:80",
            "has no usable address: HTTPS_PROXY, HTTP_",
        ),
        (
            "SSL_CERT_FILE",
            "/nope",
            "can't be read ([Errno 2] No such file or directory): check SSL_",
        ),
    ],
)
def test_an_environment_without_a_usable_client_is_refused_at_start(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        client_of(endpoint)
    assert expected in str(raised.value)
    assert "hunter2" not in str(raised.value)


# -- TLS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "authority", "expected"),
    [
        ("valid.pem", None, "is not trusted"),
        ("expired.pem", AUTHORITY, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_trusted_stops_the_worker(
    endpoint: Endpoint, certificate: str, authority: Path | None, expected: str
) -> None:
    with Server(silence, certificate) as server:
        endpoint.url = f"https://localhost:{server.port}/token"
        error = failure(endpoint, sasl_oauth_cafile=authority)
    assert type(error) is Fatal
    assert expected in str(error)
    assert "set kafka.sasl_oauth_cafile to its authority" in str(error)


def test_the_authority_can_be_ones_own(endpoint: Endpoint) -> None:
    body = b'{"access_token": "a", "expires_in": 5}'

    def answer(connection: Any) -> None:
        # The whole request: to close a connection with unread bytes discards the answer.
        for chunk in iter(lambda: connection.recv(4096), b""):
            if b"grant_type" in chunk:  # the form, which follows the head
                break
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    with Server(answer, "valid.pem") as server:
        endpoint.url = f"https://localhost:{server.port}/token"
        assert client_of(endpoint, sasl_oauth_cafile=AUTHORITY).fetch().value == "a"


def test_a_file_that_is_no_certificate_is_named(endpoint: Endpoint) -> None:
    file = Path(__file__)
    with pytest.raises(SettingsError, match=f"kafka.sasl_oauth_cafile = {file}: not a certif"):
        client_of(endpoint, sasl_oauth_cafile=file)


# -- a client of Kafka -------------------------------------------------------------------------


def connect_error(endpoint: Endpoint, server: Server, **more: Any) -> StreamlabelError:
    address = f"127.0.0.1:{server.port}"
    with pytest.raises(StreamlabelError) as raised:
        connect(KafkaAdminClient, settings(endpoint, bootstrap_servers=address, **more))
    assert str(raised.value).startswith(f"can't connect to Kafka at {address}: ")
    return raised.value


def test_a_wrong_secret_is_tried_once(endpoint: Endpoint) -> None:
    """Once in a process: each further try is one step closer to a locked account."""
    with Server(broker_that_refuses_tokens) as server:
        for _ in range(3):  # `check` makes several clients
            error = connect_error(endpoint, server, sasl_oauth_client_secret=SecretStr("wrong"))
            assert type(error) is AccessDenied
            assert "(HTTP 401, invalid_client: Wrong client secret)" in str(error)
        assert (server.connections, len(endpoint.asked)) == (0, 1)


def test_an_endpoint_that_is_away_is_asked_again(endpoint: Endpoint) -> None:
    with Server(broker_that_refuses_tokens) as server:
        endpoint.answer = 503, b""
        for _ in range(2):
            assert type(connect_error(endpoint, server)) is BrokerAway
        assert (server.connections, len(endpoint.asked)) == (0, 2)


def test_a_token_that_the_broker_refuses_is_tried_once_and_told(endpoint: Endpoint) -> None:
    endpoint.claims = {"aud": "other"}
    with Server(broker_that_refuses_tokens) as server:
        for _ in range(2):
            error = connect_error(endpoint, server)
            assert type(error) is AccessDenied
            expected = 'the broker refuses the token: {"status":"invalid_token"} (token: iss'
            assert expected in str(error)
            assert "iss 'issuer', aud 'other', ends in " in str(error)
        assert (server.connections, len(endpoint.asked)) == (1, 1)
