"""Tokens of OAUTHBEARER: one provider for all clients with the same settings.

Owns: the current token, and the thread "token", which renews it.
Thread: see each method.
Must not import: inference, runtime.

The first refusal of a token stops the worker. Later a broker may refuse a token for a while: it may
not know the issuer's new key yet, or can't reach the issuer. Such a refusal counts as a lost
connection, and the client signs in again with a newer token.

The library asks for a token on a client's IO thread, at each sign-in: of a new connection, and
again after 85 to 95 % of the time that the broker allows a connection (the rest of the token's
life, and at most `connections.max.reauth.ms`). So a token endpoint is asked ahead: by `require`,
before a client is made, and later by a thread. A token file is read at each sign-in.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailedError,
)

from worker.clock import Clock
from worker.core.faults import backoff
from worker.core.visible import excerpt
from worker.errors import AccessDenied, BrokerAway, StreamlabelError
from worker.kafka_io.claims import in_words
from worker.kafka_io.internals import AbstractTokenProvider
from worker.logs import get_logger

log = get_logger(__name__)

_RENEW_AFTER = 0.8  # of a token's life
_ASSUMED_LIFE = 300.0  # seconds, of a token whose end is unknown: it is used on, and renewed
_SHORTEST_LIFE = 1.0  # seconds; also how often the thread looks
_LOG_INTERVAL = 60.0  # seconds
_MAX_WORDS = 300  # characters of a broker's answer


class TokenRefused(KafkaConnectionError):  # type: ignore[misc] # the client has no types
    """A broker that has accepted a token refuses one; the library connects again."""


class NoToken(KafkaConnectionError):  # type: ignore[misc]
    """There is no valid token now; the library connects again."""


class ClientRefused(SaslAuthenticationFailedError):  # type: ignore[misc]
    """The token endpoint refuses this client, and its last token has ended."""


@dataclass(frozen=True)
class Token:
    """A token that a broker may be sent.

    Attributes:
        value: the secret itself.
        received: when, in seconds of the monotonic clock.
        life: seconds from then to its end; None if unknown.
    """

    value: str = field(repr=False)
    received: float
    life: float | None

    def left(self, now: float) -> float:
        """Return the seconds to its end, infinite if unknown."""
        return float("inf") if self.life is None else self.received + self.life - now

    @property
    def due(self) -> float:
        """When to renew it, in seconds of the monotonic clock."""
        life = _ASSUMED_LIFE if self.life is None else max(self.life, _SHORTEST_LIFE)
        return self.received + _RENEW_AFTER * life


class TokenSource(Protocol):
    """A place that gives tokens to a client."""

    def fetch(self) -> Token:
        """Return a new token, within seconds.

        Raises:
            BrokerAway: there is none now.
            AccessDenied: the client is refused.
            Fatal: the source can't be trusted.
        """
        ...


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives the library a token for each sign-in.

    Args:
        extensions: SASL extensions to send with each token.
        clock: measures the life of a token.

    Attributes:
        accepted: whether a broker has accepted a token.
    """

    def __init__(self, extensions: Mapping[str, str], clock: Clock) -> None:
        super().__init__()
        self._extensions, self._clock = dict(extensions), clock
        self._logged_at = float("-inf")
        self._refusals = 0  # since the last token that was accepted
        self.accepted = False

    @abstractmethod
    def require(self) -> None:
        """Return if there is a valid token; blocks for seconds.

        Raises:
            BrokerAway, AccessDenied, Fatal: as `TokenSource.fetch`.
        """

    def extensions(self) -> dict[str, str]:
        """IO thread: return the SASL extensions."""
        return self._extensions

    def in_words(self) -> str:
        """Return what is known of the token and not secret."""
        try:
            return in_words(self.token(), self._clock.wall_ms() / 1000)
        except (NoToken, ClientRefused):
            return "ended"

    async def sign_in(
        self,
        authenticate: Callable[[float | None], Awaitable[None]],
        timeout_at: float | None = None,
    ) -> None:
        """IO thread: sign a connection in, for the first time or again.

        Args:
            authenticate: the library's own method.
            timeout_at: when to give up, in seconds of the monotonic clock.

        Raises:
            TokenRefused: the broker refuses the token, and has accepted one before.
        """
        try:
            await authenticate(timeout_at)
        except ClientRefused:
            raise
        except IllegalSaslStateError as error:
            # A broker lets a connection sign in again after a second at the earliest. The token had
            # so little time left when the connection was made.
            if not self.accepted:
                raise
            raise TokenRefused("the broker refuses another sign-in so soon") from error
        except SaslAuthenticationFailedError as error:
            if not self.accepted:
                raise
            self.refuse(brokers_words(error))
            raise TokenRefused("the broker refuses the token at this time") from error
        self.accept()

    def accept(self) -> None:
        """IO thread: note that a broker accepts the token."""
        self.accepted, self._refusals = True, 0

    def refuse(self, answer: str) -> None:
        """IO thread: note that a broker refuses the token now; it has accepted one before."""
        self._refusals += 1
        self._warn(
            "the broker refuses the token, trying again", answer=answer, token=self.in_words()
        )

    def retain(self) -> None:
        """Any thread: note that a client was made."""

    def release(self) -> None:
        """Any thread: note that a client was closed."""

    def _warn(self, event: str, **fields: Any) -> None:
        """Log a warning, once a minute at most."""
        now = self._clock.monotonic()
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            log.warning(event, **fields)


def brokers_words(error: Exception) -> str:
    """Return what the broker says about a refusal."""
    return excerpt(str(error).rpartition("Error: ")[2], _MAX_WORDS)


def _explained(error: Exception) -> StreamlabelError:
    """Return the error, or one that is tried again in its place."""
    if isinstance(error, StreamlabelError):
        return error
    return BrokerAway(f"no token could be had: {type(error).__name__}: {error}")


class RenewedToken(TokenProvider):
    """A token that is renewed ahead of its end, for as long as a client is open.

    Args:
        source: gives tokens.
        extensions, clock: as for a `TokenProvider`.
    """

    def __init__(self, source: TokenSource, extensions: Mapping[str, str], clock: Clock) -> None:
        super().__init__(extensions, clock)
        self._source = source
        self._fetching, self._counting = threading.Lock(), threading.Lock()
        self._clients, self._stop = 0, threading.Event()
        self._token: Token | None = None
        self._failure: StreamlabelError | None = None
        self._tries = 0
        self._due = float("-inf")  # when to ask again

    def require(self) -> None:
        """Return at once if there is a valid token, else ask for one."""
        if self._left() > 0:
            return
        with self._fetching:
            if self._left() <= 0:
                self._fetch()

    def token(self) -> str:
        """IO thread: return the token; never waits."""
        if self._token is not None and self._left() > 0:
            return self._token.value
        if isinstance(self._failure, AccessDenied):
            raise ClientRefused(str(self._failure))
        raise NoToken("no valid token at this time")

    def refuse(self, answer: str) -> None:
        """IO thread: have another token asked for soon."""
        super().refuse(answer)
        if self._token is not None and self._due == self._token.due:  # not asked for already
            self._due = self._clock.monotonic() + backoff(self._refusals, base=1.0)

    def retain(self) -> None:
        """Start the thread with the first client."""
        with self._counting:
            self._clients += 1
            if self._clients == 1:
                self._stop = threading.Event()
                thread = threading.Thread(
                    target=self._renew_until, args=(self._stop,), name="token", daemon=True
                )
                thread.start()

    def release(self) -> None:
        """Stop the thread after the last client, once the request that it may wait for is over."""
        with self._counting:
            self._clients -= 1
            if not self._clients:
                self._stop.set()

    def _renew_until(self, stop: threading.Event) -> None:
        while not stop.wait(min(_SHORTEST_LIFE, max(0.0, self._due - self._clock.monotonic()))):
            self.renew_if_due()

    def renew_if_due(self) -> None:
        """The thread: ask for a new token if it is time; if there is none, do so again later."""
        with self._fetching:
            if self._clock.monotonic() < self._due:
                return
            try:
                self._fetch()
            except StreamlabelError as error:
                left = round(max(0.0, self._left()), 1)
                self._warn("no new token, trying again", reason=str(error), old_one_ends_in_s=left)

    def _fetch(self) -> None:
        try:
            token = self._source.fetch()
        except Exception as error:
            failure = _explained(error)
            self._failure, self._tries = failure, self._tries + 1
            self._due = self._clock.monotonic() + backoff(self._tries, base=1.0)
            raise failure from error
        if self._token is None or self._tries:
            log.info("token received", life_s=token.life)
            self._logged_at = float("-inf")
        self._token, self._failure, self._tries, self._due = token, None, 0, token.due

    def _left(self) -> float:
        return self._token.left(self._clock.monotonic()) if self._token else 0.0
