"""Reads the token of OAUTHBEARER from a file that another program renews.

Owns: nothing.
Thread: see each method.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from worker.clock import Clock
from worker.errors import BrokerAway, SettingsError
from worker.kafka_io.claims import claims_of, fault_of, seconds
from worker.kafka_io.tokens import NoToken, TokenProvider
from worker.settings.files import read_secret


class TokenFile(TokenProvider):
    """A token in a file, which another program renews.

    Args:
        path: of the file.
        extensions, clock: as for a `TokenProvider`.
    """

    def __init__(self, path: Path, extensions: Mapping[str, str], clock: Clock) -> None:
        super().__init__(extensions, clock)
        self._path = path

    def require(self) -> None:
        """Return if the file has a valid token now."""
        self._read()

    def token(self) -> str:
        """IO thread: return the token that the file has now."""
        try:
            return self._read()
        except BrokerAway as error:
            self._warn("no token, trying again", reason=str(error))
            raise NoToken("no valid token at this time") from None

    def _read(self) -> str:
        try:
            token = read_secret(self._path).strip()
        except SettingsError as error:
            raise BrokerAway(f"kafka.sasl_oauth_token_file: {error}") from None
        name = f"the token in kafka.sasl_oauth_token_file = {self._path}"
        if fault := fault_of(token):
            raise BrokerAway(f"{name} {fault}")
        end, now = seconds(claims_of(token).get("exp")), self._clock.wall_ms() / 1000
        if end is not None and end <= now:
            raise BrokerAway(
                f"{name} ended {now - end:.0f} s ago: check what renews it, and this machine's clock"
            )
        return token
