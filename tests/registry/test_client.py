"""The registry's client: what it asks, and how it takes answers that are none."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.registry.stub import AVRO, CERTIFICATES, Reply, Stub, client, missing, settings
from tests.support.clocks import HandClock
from worker.errors import (
    RegistryAway,
    RegistryDenied,
    SchemaRefused,
    SettingsError,
    StreamlabelError,
)
from worker.logs import configure
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.schema import RegisteredSchema, SchemaReference

SCHEMA = RegisteredSchema("AVRO", AVRO)
VERSION = {"subject": "posts-value", "id": 7, "version": 3, "schema": AVRO}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def failure(
    url: str, ask: Callable[[RegistryClient], object] | None = None, **values: Any
) -> StreamlabelError:
    """Return the error of a request: by default, of one for a schema."""
    ask = ask or (lambda asking: asking.schema(7))
    with client(url, **values) as asking, pytest.raises(StreamlabelError) as caught:
        ask(asking)
    return caught.value


def register(asking: RegistryClient) -> int:
    return asking.register("posts-value", SCHEMA)


def check(asking: RegistryClient) -> None:
    asking.check()


def counts(metrics: Metrics) -> dict[str, float]:
    (family,) = metrics.registry_requests.collect()
    return {
        sample.labels["outcome"]: sample.value
        for sample in family.samples
        if sample.value and sample.name.endswith("_total")
    }


def test_a_schema_is_read_with_its_type_and_references() -> None:
    listed = [{"name": "a.proto", "subject": "a", "version": 2}]
    reply = Reply(content={"schema": "text", "schemaType": "PROTOBUF", "references": listed})
    with Stub(reply) as stub, client(stub.url) as asking:
        read = asking.schema(7)
    assert read == RegisteredSchema("PROTOBUF", "text", (SchemaReference("a.proto", "a", 2),))
    assert [(one.method, one.path) for one in stub.asked] == [("GET", "/schemas/ids/7")]


def test_versions_are_read_by_number() -> None:
    with Stub(Reply(content=VERSION)) as stub, client(f"{stub.url}/api/") as asking:
        third = asking.version("a/b value", 3)
    assert third is not None
    assert (third.id, third.version, third.schema) == (7, 3, SCHEMA)
    assert stub.asked[0].path == "/api/subjects/a%2Fb%20value/versions/3?deleted=true"


def test_a_schema_is_registered_and_looked_up_with_all_that_belongs_to_it() -> None:
    schema = RegisteredSchema("JSON", "{}", (SchemaReference("a", "b", 1),))
    with Stub(Reply(content={"id": 9})) as stub, client(stub.url) as asking:
        assert asking.register("posts-value", schema) == 9
        assert asking.look_up("posts-value", schema) == 9
        assert asking.register("posts-value", SCHEMA) == 9
    reference = {"name": "a", "subject": "b", "version": 1}
    body = {"schema": "{}", "schemaType": "JSON", "references": [reference]}
    asked = [(one.method, one.path, one.body) for one in stub.asked]
    assert asked == [
        ("POST", "/subjects/posts-value/versions", body),
        ("POST", "/subjects/posts-value", body),
        ("POST", "/subjects/posts-value/versions", {"schema": AVRO}),
    ]


@pytest.mark.parametrize("code", [40401, 40402, 40403])
def test_what_is_not_there_is_none(code: int) -> None:
    metrics = Metrics()
    with Stub(missing(code)) as stub, client(stub.url, metrics) as asking:
        answers = [asking.schema(7), asking.version("a", 1), asking.look_up("a", SCHEMA)]
        answers += [asking.schema("not-a-guid"), asking.refusal("a", SCHEMA)]
    assert answers == [None] * 5
    assert counts(metrics) == {"not_found": 5}


def test_an_id_that_no_registry_has_is_not_asked_for() -> None:
    """A server calls it a wrong path, not a missing schema."""
    with Stub(Reply()) as stub, client(stub.url) as asking:
        assert (asking.schema(2**31), asking.schema(-1)) == (None, None)
    assert not stub.asked


def test_a_guid_is_asked_for_by_its_own_path_which_old_servers_lack() -> None:
    with Stub(Reply()) as stub, client(stub.url) as asking:
        assert asking.schema("e4a7") == SCHEMA
    assert stub.asked[0].path == "/schemas/guids/e4a7"


@pytest.mark.parametrize("reply", [Reply(404, b"no such path"), missing(404)])
def test_a_guid_that_a_registry_without_guids_is_asked_for_is_missing(reply: Reply) -> None:
    with (
        Stub(lambda asked: reply if "guids" in asked.path else Reply(content=["AVRO"])) as stub,
        client(stub.url) as asking,
    ):
        assert asking.schema("e4a7") is None
    assert [one.path for one in stub.asked] == ["/schemas/guids/e4a7", "/schemas/types"]


@pytest.mark.parametrize("types", [Reply(404, b"no such path"), Reply(200, {})])
def test_a_guid_that_a_gateway_does_not_find_is_not_missing(types: Reply) -> None:
    missing_path = Reply(404, b"default backend - 404")
    with Stub(lambda asked: missing_path if "guids" in asked.path else types) as stub:
        error = failure(stub.url, lambda asking: asking.schema("e4a7"))
    assert isinstance(error, RegistryAway)
    assert "check the path in registry.url" in str(error)


@pytest.mark.parametrize("content", [b"default backend - 404", {"error_code": 0}, {"message": "x"}])
def test_a_404_of_another_server_is_no_missing_schema(content: Any) -> None:
    """A gateway whose route is gone would make every record a dead letter."""
    with Stub(Reply(404, content)) as stub:
        for ask in (None, register):
            error = failure(stub.url, ask)
            assert isinstance(error, RegistryAway)
            assert "check the path in registry.url" in str(error)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(500, {"error_code": 50001, "message": "store\n failed"}), "500: store failed"),
        (Reply(503, b"<html>"), "503: no message"),
        (Reply(429, {"message": "slow down"}), "429: slow down"),
        (Reply(200, b"<html>sign in</html>"), "not JSON: is a proxy"),
        (Reply(200, b"\xff\xfe"), "not JSON"),
        (Reply(204, b""), "not JSON"),
        (Reply(200, {"id": 1}), "without 'schema'"),
        (Reply(200, [AVRO]), "without 'schema'"),
        (Reply(200, None), "without 'schema'"),
        (Reply(200, {"schema": {"type": "string"}}), "without 'schema'"),
        (Reply(200, {"schema": AVRO, "references": [1]}), "without 'name'"),
        (Reply(200, missing=10), "closed connection|incomplete"),
    ],
)
def test_an_unusable_answer_is_a_registry_that_is_away(reply: Reply, reason: str) -> None:
    with Stub(reply) as stub:
        error = failure(stub.url)
    assert isinstance(error, RegistryAway)
    assert re.search(f"{stub.url}.*({reason})", str(error)), error


@pytest.mark.parametrize("content", [{}, {"id": "7"}, {"id": True}, [7]])
def test_an_id_that_is_no_number_is_no_answer(content: Any) -> None:
    with Stub(Reply(200, content)) as stub:
        error = failure(stub.url, register)
    assert isinstance(error, RegistryAway)
    assert "without 'id'" in str(error)


def test_a_subject_that_can_not_be_added_is_a_registry_that_is_away() -> None:
    with Stub(missing(40401)) as stub:
        error = failure(stub.url, register)
    assert isinstance(error, RegistryAway)
    assert "did not find subject 'posts-value'" in str(error)


def test_a_registry_that_hangs_is_away_after_the_timeout() -> None:
    with Stub(Reply(hangs=True)) as stub:
        error = failure(stub.url, timeout=0.2)
    assert isinstance(error, RegistryAway)
    assert "does not answer within 0.2 s" in str(error)


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    class Hurried(HandClock):
        def monotonic(self) -> float:
            self.now += 1000
            return self.now

    with Stub(Reply(content={"schema": AVRO * 10_000})) as stub:
        asking = RegistryClient(settings(stub.url), Metrics(), Hurried())
        with pytest.raises(RegistryAway, match=r"too slowly \(registry\.timeout\)"):
            asking.schema(7)
        asking.close()


def test_a_registry_without_a_server_is_away() -> None:
    with Stub(Reply()) as stub:
        url = stub.url
    error = failure(url)
    assert isinstance(error, RegistryAway)
    assert re.search(f"{url}: .*refused", str(error))


@pytest.mark.parametrize("status", [409, 422])
def test_a_refused_schema_has_the_words_of_the_registry(status: int) -> None:
    message = "reader type: INT\n not " + "x" * 5000
    with Stub(Reply(status, {"error_code": status, "message": message})) as stub:
        error = failure(stub.url, register)
    assert isinstance(error, SchemaRefused)
    assert not isinstance(error, RegistryDenied)
    assert f"{status}: reader type: INT not xxx" in str(error)
    assert len(str(error)) < 1_200


@pytest.mark.parametrize(
    ("status", "content"),
    [
        *((status, b"<html>Blocked</html>") for status in (400, 402, 409, 410, 421, 422, 431, 451)),
        *((status, {"message": "blocked"}) for status in (400, 405, 406)),
    ],
)
def test_a_refusal_of_a_proxy_is_none_of_the_registry(status: int, content: Any) -> None:
    """Every record of an unknown schema would become a dead letter."""
    with Stub(Reply(status, content)) as stub:
        error = failure(stub.url)
    assert isinstance(error, RegistryAway)
    assert f"{stub.url} answers {status}: " in str(error)
    assert "A proxy or a gateway answers so" in str(error)


@pytest.mark.parametrize(
    ("status", "setting"),
    [(407, "HTTPS_PROXY"), (495, "registry.ssl_certfile"), (496, "registry.ssl_certfile")],
)
def test_a_proxy_that_asks_for_a_sign_in_needs_an_operator(status: int, setting: str) -> None:
    with Stub(Reply(status, b"<html>")) as stub:
        error = failure(stub.url)
    assert isinstance(error, RegistryDenied)
    assert setting in str(error)


def test_a_proxy_that_asks_for_a_sign_in_before_tls_needs_an_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Stub(Reply(407, b"<html>")) as stub:
        monkeypatch.setenv("HTTPS_PROXY", stub.url)
        error = failure("https://registry.invalid")
    assert isinstance(error, RegistryDenied)
    assert "HTTPS_PROXY" in str(error)


def test_a_409_is_believed_after_some_tries() -> None:
    """The schema may have been registered at the same moment as another one."""
    statuses = iter([409, 409, 200])
    with (
        Stub(lambda _: Reply(next(statuses), {"id": 9, "error_code": 409})) as stub,
        client(stub.url) as asking,
    ):
        assert asking.register("posts-value", SCHEMA) == 9
    with Stub(Reply(409, {"error_code": 409, "message": "not compatible"})) as stub:
        assert "not compatible" in str(failure(stub.url, register))
    assert len(stub.asked) == 5


def test_a_long_refusal_is_not_read_to_its_end() -> None:
    with Stub(Reply(409, b'{"error_code":409,"message":"INT' + b"x" * 100_000_000)) as stub:
        error = failure(stub.url, register)
    assert isinstance(error, SchemaRefused)
    assert "answers 409: INTxxx" in str(error)
    assert stub.sent < 50_000_000 * len(stub.asked)


def test_an_unknown_type_of_schema_is_refused() -> None:
    with Stub(Reply(content={"schema": "<xsd/>", "schemaType": "XML"})) as stub:
        error = failure(stub.url)
    assert type(error) is SchemaRefused
    assert "'XML', not AVRO, JSON or PROTOBUF" in str(error)


def test_a_schema_of_5_mb_is_read() -> None:
    text = json.dumps({"type": "string", "doc": 'ä"\\' * 1_250_000})
    with Stub(Reply(content={"schema": text})) as stub, client(stub.url) as asking:
        assert asking.schema(7) == RegisteredSchema("AVRO", text)


@pytest.mark.parametrize("compressed", [False, True])
def test_an_endless_answer_is_refused_before_it_fills_memory(compressed: bool) -> None:
    body = b'{"schema": "' + b"x" * 100_000_000 + b'"}'
    reply = Reply(content=body)
    if compressed:
        reply = Reply(content=gzip.compress(body, 1), headers={"Content-Encoding": "gzip"})
    with Stub(reply) as stub:
        error = failure(stub.url)
    assert type(error) is SchemaRefused
    assert "larger than 33,554,432 bytes" in str(error)
    assert stub.sent < 50_000_000


def test_a_redirect_is_named_and_not_followed() -> None:
    """The sign-in would go to a server that the settings don't name."""
    with Stub(Reply()) as other, Stub(redirect(f"{other.url}/secret-path")) as stub:
        error = failure(stub.url, token="hunter2")
    assert isinstance(error, RegistryAway)
    assert f"redirects to {other.url}: set registry.url" in str(error)
    assert "secret-path" not in str(error)
    assert not other.asked
    with Stub(Reply(302, b"")) as stub:
        assert "redirects to no address" in str(failure(stub.url))


def redirect(target: str) -> Reply:
    return Reply(302, b"", {"Location": target})


@pytest.mark.parametrize(
    ("values", "header"),
    [
        ({}, None),
        ({"token": "abc.def"}, "Bearer abc.def"),
        ({"username": "me", "password": "hunter2-ü"}, "Basic " + encoded("me:hunter2-ü")),
        ({"username": "me"}, "Basic " + encoded("me:")),
    ],
)
def test_the_sign_in_is_sent(values: dict[str, Any], header: str | None) -> None:
    with Stub(Reply()) as stub, client(stub.url, **values) as asking:
        asking.schema(7)
    assert stub.asked[0].headers.get("Authorization") == header


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("values", "who"),
    [
        ({}, "refuses requests without a sign-in: set registry.username and registry.password"),
        ({"token": "hunter2"}, "refuses registry.token"),
        ({"username": "me", "password": "hunter2"}, "refuses registry.username = 'me'"),
    ],
)
def test_a_refused_sign_in_is_one_sentence_without_the_secret(
    status: int, values: dict[str, Any], who: str
) -> None:
    with Stub(Reply(status, {"error_code": status, "message": "Unauthorized"})) as stub:
        errors = [failure(stub.url, ask, **values) for ask in (check, None, register)]
    for error in errors:
        assert isinstance(error, RegistryDenied)
        assert str(error).startswith(f"{stub.url} {who}")
        assert f"({status}): Unauthorized" in str(error)
        assert "hunter2" not in str(error)


def test_requests_are_counted_by_their_outcome() -> None:
    metrics = Metrics()
    statuses = iter([200, 401, 500, 404, 409, 200])
    content = {"schema": AVRO, "error_code": 40403}
    with (
        Stub(lambda _: Reply(next(statuses), content)) as stub,
        client(stub.url, metrics) as asking,
    ):
        for _ in range(6):
            with contextlib.suppress(StreamlabelError):
                asking.schema(7)
    assert counts(metrics) == {"answered": 2, "refused": 2, "away": 1, "not_found": 1}


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_request_logs_nothing(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The HTTP client would log each one, at `debug` with its headers."""
    configure(level, "json")
    with Stub(Reply()) as stub, client(stub.url, token="hunter2") as asking:
        asking.schema(7)
    assert capsys.readouterr().err == ""


def test_addresses_are_tried_in_turn_beginning_with_the_last_that_answered() -> None:
    metrics = Metrics()
    with Stub(Reply(500)) as first, Stub(Reply()) as second:
        url = f"{first.url}, {second.url}"
        with client(url, metrics) as asking:
            assert asking.schema(7) == asking.schema(8) == SCHEMA
    assert (len(first.asked), len(second.asked)) == (1, 2)
    assert counts(metrics) == {"answered": 2}


def test_the_reasons_of_all_addresses_are_named() -> None:
    with Stub(Reply(500)) as first, Stub(Reply(401)) as second:
        error = failure(f"{first.url},{second.url}")
    assert isinstance(error, RegistryAway)
    assert f"{first.url} answers 500" in str(error)
    assert f"{second.url} refuses requests" in str(error)


def test_the_check_recognises_a_schema_registry() -> None:
    with Stub(Reply(content=["AVRO"])) as stub, client(stub.url) as asking:
        asking.check()
    assert stub.asked[0].path == "/schemas/types"


@pytest.mark.parametrize("reply", [Reply(404, b"nothing here"), Reply(200, {}), missing(404)])
def test_the_check_refuses_another_server(reply: Reply) -> None:
    with Stub(reply) as stub:
        error = failure(stub.url, check)
    assert type(error) is SchemaRefused
    assert "is the path in registry.url complete" in str(error)


AUTHORITY = {"ssl_cafile": CERTIFICATES / "authority.pem"}


def test_a_certificate_is_checked_against_the_authority() -> None:
    with Stub(Reply(), "valid.pem") as stub:
        with client(stub.url, **AUTHORITY) as asking:
            assert asking.schema(7) == SCHEMA
        error = failure(stub.url, check)
    assert isinstance(error, RegistryDenied)
    assert re.search(r"not trusted .* set registry\.ssl_cafile", str(error))


def test_an_expired_certificate_is_refused() -> None:
    with Stub(Reply(), "expired.pem") as stub:
        error = failure(stub.url, check, **AUTHORITY)
    assert isinstance(error, RegistryDenied)
    assert "expired" in str(error)


def test_a_client_certificate_with_an_encrypted_key_signs_in() -> None:
    pair = {
        "ssl_certfile": CERTIFICATES / "valid.pem",
        "ssl_keyfile": CERTIFICATES / "encrypted.pem",
        "ssl_key_password": "password",
    }
    with Stub(Reply(), "valid.pem", asks=True) as stub:
        with client(stub.url, **AUTHORITY, **pair) as asking:
            assert asking.schema(7) == SCHEMA
        error = failure(stub.url, check, **AUTHORITY)
    assert isinstance(error, RegistryDenied)
    assert "registry.ssl_certfile" in str(error)


def test_a_tls_file_that_can_not_be_used_is_named() -> None:
    pair = {
        "ssl_certfile": CERTIFICATES / "valid.pem",
        "ssl_keyfile": CERTIFICATES / "encrypted.pem",
    }
    with pytest.raises(SettingsError, match=r"registry\.ssl_key_password does not decrypt it"):
        RegistryClient(settings("https://h", ssl_key_password="wrong", **pair), Metrics())


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"ALL_PROXY": "socks5://me:hunter2@127.0.0.1:1"}, "ALL_PROXY.*SOCKS.*socksio"),
        ({"HTTPS_PROXY": "ftp://me:hunter2@127.0.0.1:1"}, "HTTPS_PROXY.*no valid address"),
        ({"HTTPS_PROXY": "http://[::hunter2"}, "HTTPS_PROXY.*no valid address"),
        ({"SSL_CERT_FILE": "/nope"}, r"SSL_CERT_FILE.*No such file.*registry\.ssl_cafile"),
    ],
)
def test_an_environment_that_can_not_be_used_is_one_sentence_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], names: str
) -> None:
    if "socksio" in names:
        monkeypatch.setitem(sys.modules, "socksio", None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=names) as caught:
        RegistryClient(settings("https://h"), Metrics())
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://ä..x:81", f"http://{'a' * 70}.x", "http://h,http://ä..x"])
def test_a_host_that_can_not_be_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match=r"registry\.url: 'http://(ä\.\.x|aaa).* host name"):
        RegistryClient(settings(url), Metrics())


@pytest.mark.parametrize("token", ["hunter2-ü", "hunter2\nhunter2"])
def test_a_token_that_no_header_can_have_is_not_quoted(token: str) -> None:
    with pytest.raises(SettingsError, match=r"registry\.token has characters") as caught:
        RegistryClient(settings("http://h", token=token), Metrics())
    assert "hunter2" not in str(caught.value)


def test_a_proxy_without_a_valid_host_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@{'a' * 70}.x")
    error = failure("http://registry.invalid")
    assert isinstance(error, RegistryAway)
    assert "HTTP_PROXY" in str(error)
    assert "hunter2" not in str(error)


def test_a_server_without_tls_is_recognised() -> None:
    with Stub(Reply()) as stub:
        error = failure(stub.url.replace("http:", "https:"), check)
    assert isinstance(error, RegistryDenied)
    assert "does not speak TLS" in str(error)
