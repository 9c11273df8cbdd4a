"""Tokens of OAUTHBEARER: renewed ahead, kept while no new one comes, and read from files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import IllegalSaslStateError, RetriableError, SaslAuthenticationFailedError
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.oauth import Issuer
from tests.support.workers import wait_until
from worker.errors import AccessDenied, BrokerAway, Fatal
from worker.kafka_io.claims import claims_of, fault_of, in_words, seconds
from worker.kafka_io.token_file import TokenFile
from worker.kafka_io.tokens import (
    ClientRefused,
    NoToken,
    RenewedToken,
    Token,
    TokenRefused,
)

LIFE = 100.0


class Source:
    """Gives numbered tokens, or fails."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.asked = 0
        self.life: float | None = LIFE
        self.failure: Exception | None = None
        self.on_fetch: Callable[[], Any] = lambda: None

    def fetch(self) -> Token:
        self.asked += 1
        self.on_fetch()
        if self.failure:
            raise self.failure
        return Token(f"token-{self.asked}", self._clock.monotonic(), self.life)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def source(clock: HandClock) -> Source:
    return Source(clock)


@pytest.fixture
def provider(source: Source, clock: HandClock) -> RenewedToken:
    return RenewedToken(source, {"logicalCluster": "lkc-1"}, clock)


def after(clock: HandClock, provider: RenewedToken, seconds: float) -> None:
    """Let time pass as the thread sees it, second by second."""
    for _ in range(int(seconds)):
        clock.now += 1
        provider.renew_if_due()


# -- renewal -----------------------------------------------------------------------------------


def test_one_token_serves_every_sign_in(provider: RenewedToken, source: Source) -> None:
    for _ in range(3):
        provider.require()
        assert provider.token() == "token-1"
    assert source.asked == 1
    assert provider.extensions() == {"logicalCluster": "lkc-1"}


def test_a_token_is_renewed_after_four_fifths_of_its_life(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    after(clock, provider, 0.8 * LIFE - 1)
    assert source.asked == 1
    after(clock, provider, 1)
    assert provider.token() == "token-2"
    after(clock, provider, 0.8 * LIFE)
    assert provider.token() == "token-3"


def test_a_token_without_a_known_end_is_renewed_too_and_never_ends(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    source.life = None
    provider.require()
    after(clock, provider, 240)
    assert provider.token() == "token-2"
    source.failure = BrokerAway("away")
    after(clock, provider, 10_000)
    assert provider.token() == "token-2"


def test_without_a_new_token_the_old_one_is_used_to_its_end(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    source.failure = BrokerAway("the endpoint is away")
    with capture_logs() as lines:
        after(clock, provider, LIFE - 1)
        assert provider.token() == "token-1"
        assert [line["event"] for line in lines] == ["no new token, trying again"]
        assert (lines[0]["reason"], lines[0]["old_one_ends_in_s"]) == ("the endpoint is away", 20.0)
        after(clock, provider, 300)
    assert len(lines) <= 6  # once a minute
    with pytest.raises(NoToken) as raised:
        provider.token()
    assert isinstance(raised.value, RetriableError)
    assert provider.in_words() == "ended"
    with pytest.raises(BrokerAway, match="the endpoint is away"):
        provider.require()


def test_an_error_that_the_source_does_not_know_is_tried_again(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    """A web identity's file is missing for a moment: the thread must not end with it."""
    provider.require()
    source.failure = FileNotFoundError(2, "No such file or directory", "/var/run/token")
    with capture_logs() as lines:
        after(clock, provider, LIFE + 30)
    assert "FileNotFoundError" in lines[0]["reason"]
    assert "/var/run/token" in lines[0]["reason"]
    with pytest.raises(BrokerAway, match="FileNotFoundError"):
        provider.require()
    source.failure = None
    after(clock, provider, 12)
    assert provider.token()


def test_a_client_does_not_wait_for_a_renewal_while_the_token_is_valid(
    provider: RenewedToken,
) -> None:
    provider.require()
    with provider._fetching:  # a renewal that hangs
        provider.require()
    assert provider.token() == "token-1"


def test_attempts_to_renew_become_rarer(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    source.failure = BrokerAway("away")
    after(clock, provider, 0.8 * LIFE + 600)
    assert 60 < source.asked < 240  # every 5 s on average, once the wait has its bound of 10 s


def test_a_new_token_is_used_as_soon_as_there_is_one(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    source.failure = BrokerAway("away")
    after(clock, provider, 200)
    source.failure = None
    with capture_logs() as lines:
        after(clock, provider, 10)
    assert provider.token() == f"token-{source.asked}"
    assert [line["event"] for line in lines] == ["token received"]


def test_a_refused_client_is_an_error_once_its_last_token_has_ended(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    """A short fault of the issuer must not stop a worker that still has a token."""
    provider.require()
    source.failure = AccessDenied("client 'me' is refused")
    after(clock, provider, LIFE - 1)
    assert provider.token() == "token-1"
    clock.now += 1
    with pytest.raises(ClientRefused, match="client 'me' is refused") as raised:
        provider.token()
    assert isinstance(raised.value, SaslAuthenticationFailedError)


def test_a_certificate_that_is_not_trusted_is_retried_under_way(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    source.failure = Fatal("not trusted")
    after(clock, provider, LIFE)
    with pytest.raises(NoToken):
        provider.token()


# -- refusals of the broker ----------------------------------------------------------------------


def test_a_token_that_a_broker_refuses_is_replaced_soon_and_then_less_often(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    provider.accept()
    with capture_logs() as lines:
        for _ in range(300):
            provider.refuse("invalid_token")
            after(clock, provider, 1)
            if clock.now == 1002:
                assert source.asked >= 2
    assert 20 < source.asked < 150  # every 5 s on average, once the wait has its bound of 10 s
    assert lines[0]["event"] == "the broker refuses the token, trying again"
    assert (lines[0]["answer"], lines[0]["token"]) == ("invalid_token", "not a JSON Web Token")
    assert len(lines) <= 6  # once a minute


def test_a_token_that_is_accepted_ends_the_search(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    provider.refuse("invalid_token")
    after(clock, provider, 2)
    assert source.asked == 2
    provider.accept()
    after(clock, provider, 0.8 * LIFE - 2)
    assert source.asked == 2


async def accepts(_: float | None) -> None:
    pass


async def refuses(_: float | None) -> None:
    raise SaslAuthenticationFailedError('SaslAuthenticationFailedError: {"status":"invalid_token"}')


async def has_no_client(_: float | None) -> None:
    raise ClientRefused("the endpoint refuses the client")


async def is_too_early(_: float | None) -> None:
    raise IllegalSaslStateError


def sign_in(provider: RenewedToken, authenticate: Callable[..., Any]) -> None:
    """Run one sign-in, which waits for nothing."""
    with pytest.raises(StopIteration):
        provider.sign_in(authenticate, 1.0).send(None)


def test_only_the_first_refusal_of_a_token_is_final(provider: RenewedToken) -> None:
    """A broker may answer so at once, or at the end of the exchange of RFC 7628."""
    provider.require()
    with pytest.raises(SaslAuthenticationFailedError):
        sign_in(provider, refuses)
    sign_in(provider, accepts)
    assert provider.accepted
    with capture_logs() as lines, pytest.raises(TokenRefused) as raised:
        sign_in(provider, refuses)
    assert isinstance(raised.value, RetriableError)
    assert [line["answer"] for line in lines] == ['{"status":"invalid_token"}']
    with pytest.raises(ClientRefused):
        sign_in(provider, has_no_client)


def test_another_sign_in_within_a_second_counts_as_a_lost_connection(
    provider: RenewedToken,
) -> None:
    """A broker refuses it. The connection was made just before its token ended."""
    provider.require()
    with pytest.raises(IllegalSaslStateError):
        sign_in(provider, is_too_early)
    sign_in(provider, accepts)
    with pytest.raises(TokenRefused) as raised:
        sign_in(provider, is_too_early)
    assert isinstance(raised.value, RetriableError)


# -- the thread --------------------------------------------------------------------------------


def test_the_thread_lives_as_long_as_a_client(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    provider.retain()
    provider.retain()
    provider.release()
    clock.now += 0.9 * LIFE
    wait_until(lambda: provider.token() == "token-2", what="the thread renews")
    provider.release()
    wait_until(lambda: not threads(), what="the thread has ended")
    provider.retain()
    clock.now += 0.9 * LIFE
    wait_until(lambda: provider.token() == "token-3", what="another thread renews")
    provider.release()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "token"]


def test_the_io_thread_never_waits_for_the_endpoint(
    provider: RenewedToken, source: Source, clock: HandClock
) -> None:
    provider.require()
    asked, answer = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        answer.wait(30)

    source.on_fetch = hang
    clock.now += 0.9 * LIFE
    provider.retain()
    assert asked.wait(30)
    assert provider.token() == "token-1"
    answer.set()
    wait_until(lambda: provider.token() == "token-2", what="the answer arrives")
    provider.release()


def test_clients_that_start_together_ask_once(provider: RenewedToken, source: Source) -> None:
    starting = [threading.Thread(target=provider.require) for _ in range(5)]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert source.asked == 1


# -- files -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


def test_a_file_is_read_at_each_sign_in(file: Path, clock: HandClock) -> None:
    provider = TokenFile(file, {}, clock)
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        provider.require()
        assert provider.token() == token


def test_a_file_is_replaced_as_kubernetes_does(tmp_path: Path, clock: HandClock) -> None:
    """`token` links to `..data/token`, and `..data` to a folder that is exchanged."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    provider = TokenFile(tmp_path / "token", {}, clock)
    assert provider.token() == "one"
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert provider.token() == "two"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "can't be read: No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "is not UTF-8"),
        (b"x" * 70_000, "larger than 65536 bytes"),
        (b"two words", "characters that no token has"),
        (b"a\x01b", "characters that no token has"),
    ],
)
def test_a_file_without_a_token_is_named_and_retried(
    file: Path, clock: HandClock, content: bytes | None, expected: str
) -> None:
    provider = TokenFile(file, {}, clock)
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BrokerAway, match=r"kafka\.sasl_oauth_token_file") as raised:
        provider.require()
    assert str(file) in str(raised.value)
    assert expected in str(raised.value)
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(NoToken):
                provider.token()
    assert [line["event"] for line in lines] == ["no token, trying again"]
    file.write_text("a-token")
    assert provider.token() == "a-token"


def test_a_token_that_has_ended_is_not_sent(file: Path, clock: HandClock, issuer: Issuer) -> None:
    """The broker would refuse it, which stops the worker."""
    file.write_text(issuer.token(exp=int(clock.now) + 60))
    provider = TokenFile(file, {}, clock)
    provider.require()
    clock.now += 61
    with pytest.raises(BrokerAway, match="ended 1 s ago: check what renews it, and this machine's"):
        provider.require()
    assert provider.in_words() == "ended"


# -- claims ------------------------------------------------------------------------------------


def test_claims_are_read_from_json_web_tokens_only(issuer: Issuer) -> None:
    assert claims_of(issuer.token(aud="x"))["aud"] == "x"
    for token in ("opaque", "a.b", "a.b.c", "a.!.c", "..", "a.W10.c", f"a.{'WwW' * 20_000}.c"):
        assert claims_of(token) == {}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"aud": ["a", "b"], "exp": 160}, "iss 'issuer', aud \"['a', 'b']\", ends in 60 s"),
        ({"iss": "\x1b[1m", "exp": 40}, "iss '[U+001B][1m', aud 'kafka', ended 60 s ago"),
        ({"exp": "soon"}, "iss 'issuer', aud 'kafka'"),
    ],
)
def test_a_token_is_told_in_words(issuer: Issuer, claims: dict[str, Any], expected: str) -> None:
    assert in_words(issuer.token(**claims), now=100.0) == expected


def test_a_token_without_claims_is_told_in_words() -> None:
    assert in_words("a.eyJhIjoxfQ.c", now=0.0) == "no issuer, audience or end"
    assert in_words("opaque", now=0.0) == "not a JSON Web Token"


def test_seconds_may_be_a_string() -> None:
    values = (3600, "3600", 0.5, None, "soon", "nan", "inf", [1], True)
    expected = (3600.0, 3600.0, 0.5, None, None, None, None, None, 1.0)
    assert tuple(map(seconds, values)) == expected


def test_a_token_is_never_shown(issuer: Issuer) -> None:
    token = issuer.token()
    assert token not in repr(Token(token, 0.0, 1.0))
    assert fault_of(token) is None
    assert fault_of("x" * 70_000) == "has more than 65536 characters"
