"""A password in a file, which another program may replace: read again for each sign-in.

Owns: whether a broker has accepted it, and when a refused one is sent again.
Thread: the IO thread of each client.
Must not import: inference, runtime.

The first refusal of a password stops the worker. Once one was accepted, a refusal means that the
password is being replaced: the broker has the new one and the file does not, or the other way
round. It counts as a lost connection then. A new password is sent at once; one that was refused is
sent again after some seconds, so that an account is not locked by thousands of attempts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from kafka.errors import KafkaConnectionError, SaslAuthenticationFailedError

from worker.clock import Clock
from worker.core.faults import backoff
from worker.kafka_io.tokens import brokers_words
from worker.logs import get_logger
from worker.settings import FileSecret, current

log = get_logger(__name__)

_LOG_INTERVAL: Final = 60.0  # seconds
_OPTION: Final = "sasl_plain_password"
_ADVICE: Final = "the broker refuses the password at this time: is it being replaced in {}?"


class PasswordRefused(KafkaConnectionError):  # type: ignore[misc] # the client has no types
    """A broker that has accepted a password refuses one; the library connects again."""


class Password:
    """The password of a user, for all clients that sign in as this user.

    Args:
        secret: with the file that holds it.
        clock: measures the time between two attempts.
    """

    def __init__(self, secret: FileSecret, clock: Clock) -> None:
        self._secret, self._clock = secret, clock
        self._accepted = False
        self._refused, self._refusals = "", 0  # the last refused one, and how often in a row
        self._again_at = self._log_at = float("-inf")  # seconds of the monotonic clock

    async def sign_in(
        self,
        config: dict[str, Any],
        authenticate: Callable[[float | None], Awaitable[None]],
        timeout_at: float | None = None,
    ) -> None:
        """IO thread: sign a connection in, for the first time or again.

        Args:
            config: the connection's options, which get the password.
            authenticate: the library's own method.
            timeout_at: when to give up, in seconds of the monotonic clock.

        Raises:
            PasswordRefused: the broker refuses it, and has accepted one before.
        """
        password = config[_OPTION] = current(self._secret)
        if password == self._refused and self._clock.monotonic() < self._again_at:
            raise PasswordRefused(self._advice)
        try:
            await authenticate(timeout_at)
        except SaslAuthenticationFailedError as error:
            if not self._accepted:
                raise
            self._refuse(password, brokers_words(error))
            raise PasswordRefused(self._advice) from error
        self._accepted, self._refused, self._refusals = True, "", 0
        self._log_at = float("-inf")

    @property
    def _advice(self) -> str:
        return _ADVICE.format(self._secret.file)

    def _refuse(self, password: str, answer: str) -> None:
        self._refusals = self._refusals + 1 if password == self._refused else 1
        self._refused, now = password, self._clock.monotonic()
        self._again_at = now + backoff(self._refusals, base=1.0)
        if now >= self._log_at:
            self._log_at = now + _LOG_INTERVAL
            file = str(self._secret.file)
            log.warning("the broker refuses the password, trying again", answer=answer, file=file)
