"""Asks a token endpoint for a token, by client credentials (RFC 6749, section 4.4).

Owns: nothing.
Thread: any; blocks for up to five seconds.
Must not import: kafka, inference, runtime.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx2

from worker.clock import Clock
from worker.core.visible import excerpt
from worker.errors import AccessDenied, BrokerAway, Fatal, SettingsError, StreamlabelError
from worker.kafka_io.claims import claims_of, fault_of, seconds
from worker.kafka_io.tokens import Token
from worker.settings import KafkaSettings

_TIMEOUT = 5.0  # seconds, for a whole request
_MAX_ANSWER = 262_144  # bytes
_MAX_WORDS = 300  # characters of an endpoint's own words
_OK = 200
_HEADERS = {"Accept": "application/json"}
_REFUSED = (400, 401, 403)  # section 5.2; 403 is not in it, but some endpoints answer with it


class TokenEndpoint:
    """A token endpoint, as one client.

    Args:
        kafka: the endpoint and the client's credentials.
        clock: measures the life of a token.

    Raises:
        SettingsError: the file of the authority, or a proxy of the environment, can't be used.
    """

    def __init__(self, kafka: KafkaSettings, clock: Clock) -> None:
        self._kafka, self._clock = kafka, clock
        self._url = kafka.sasl_oauth_token_url or ""
        self._id = kafka.sasl_oauth_client_id or ""
        secret = kafka.sasl_oauth_client_secret
        self._secret = secret.get_secret_value() if secret else ""
        self._name = f"the token endpoint {self._url}"
        self._client = _client(self._name, _trusted(kafka.sasl_oauth_cafile))

    def fetch(self) -> Token:
        """Return a new token.

        Raises:
            BrokerAway: the endpoint does not answer, or without a token.
            AccessDenied: it refuses the client.
            Fatal: its certificate is not trusted.
        """
        asked = self._clock.monotonic()
        try:
            status, body = self._ask(asked + _TIMEOUT)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        fields = answer if isinstance(answer, dict) else {}
        if status == _OK and answer is not None:
            return self._token(fields, asked)
        raise self._refusal(status, fields)

    def _ask(self, deadline: float) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        kafka = self._kafka
        form = {"grant_type": "client_credentials", **kafka.sasl_oauth_parameters}
        if kafka.sasl_oauth_scope:
            form["scope"] = kafka.sasl_oauth_scope
        login = None
        if kafka.sasl_oauth_client_auth == "post":
            form |= {"client_id": self._id, "client_secret": self._secret}
        else:  # both are encoded, says RFC 6749, section 2.3.1
            login = httpx2.BasicAuth(quote_plus(self._id), quote_plus(self._secret))
        body = bytearray()
        with self._client.stream(
            "POST", self._url, data=form, auth=login, headers=_HEADERS, timeout=_TIMEOUT
        ) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER:
                    raise httpx2.ReadError(f"its answer is larger than {_MAX_ANSWER} bytes")
                if self._clock.monotonic() > deadline:
                    raise httpx2.ReadTimeout(f"its answer takes longer than {_TIMEOUT:g} s")
        return response.status_code, bytes(body)

    def _token(self, fields: dict[str, Any], asked: float) -> Token:
        value = fields.get("access_token")
        if not isinstance(value, str):
            raise BrokerAway(
                f"{self._name} answers without an access_token: check kafka.sasl_oauth_token_url"
            )
        if fault := fault_of(value):
            raise BrokerAway(f"{self._name} gives an access_token that {fault}")
        life = seconds(fields.get("expires_in"))
        if life is None:
            life = self._life(value)
        if life is not None and life <= 0:
            raise BrokerAway(f"{self._name} gives a token that has ended (life: {life:g} s)")
        return Token(value, asked, life)

    def _life(self, token: str) -> float | None:
        """Return how long a token lives by its own claims; the endpoint's clock may be wrong."""
        claims = claims_of(token)
        end, issued = seconds(claims.get("exp")), seconds(claims.get("iat"))
        if end is None:
            return None
        return end - (self._clock.wall_ms() / 1000 if issued is None else issued)

    # -- failures ------------------------------------------------------------------------------

    def _refusal(self, status: int, fields: dict[str, Any]) -> StreamlabelError:
        named = [fields[name] for name in ("error", "error_description") if fields.get(name)]
        words = excerpt(self._masked(": ".join(map(str, named))), _MAX_WORDS)
        answer = f"HTTP {status}" + (f", {words}" if words else "")
        if status in _REFUSED:
            return AccessDenied(
                f"{self._name} refuses the client {self._id!r} ({answer}): check "
                "kafka.sasl_oauth_client_id, kafka.sasl_oauth_client_secret, "
                "kafka.sasl_oauth_client_auth and kafka.sasl_oauth_scope"
            )
        if status == _OK:
            answer = "not JSON"
        return BrokerAway(
            f"{self._name} gives no token ({answer}): if that lasts, check "
            "kafka.sasl_oauth_token_url"
        )

    def _masked(self, words: str) -> str:
        """Hide what the endpoint repeats of the client's secrets, also as the request had them."""
        plain = {self._secret, *self._kafka.sasl_oauth_parameters.values()} - {""}
        for secret in sorted(plain | set(map(quote_plus, plain)), key=len, reverse=True):
            words = words.replace(secret, "***")
        return words

    def _unreachable(self, error: Exception) -> StreamlabelError:
        reason = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return Fatal(
                f"the certificate of {self._name} is not trusted ({reason}): set "
                "kafka.sasl_oauth_cafile to its authority, and check this machine's clock"
            )
        return BrokerAway(f"{self._name} does not answer ({reason})")


def _client(name: str, trusted: ssl.SSLContext | bool) -> httpx2.Client:
    """Return a client that keeps no connection: the next request is minutes away.

    No message quotes a proxy's address, which may have a password in it.
    """
    try:
        return httpx2.Client(verify=trusted, limits=httpx2.Limits(max_keepalive_connections=0))
    except ImportError as error:
        raise SettingsError(
            f"the proxy of {name} speaks SOCKS, which needs the package socksio: install it, or "
            "name an http proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
        ) from error
    except (ValueError, httpx2.InvalidURL) as error:
        raise SettingsError(
            f"the proxy of {name} has no usable address: HTTPS_PROXY, HTTP_PROXY and ALL_PROXY "
            "must be http://HOST:PORT"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"the public authorities for {name} can't be read ({error}): check SSL_CERT_FILE and "
            "SSL_CERT_DIR, or set kafka.sasl_oauth_cafile"
        ) from error


def _trusted(authority: Path | None) -> ssl.SSLContext | bool:
    """Return the authorities to trust; True stands for the public ones."""
    if authority is None:
        return True
    try:
        return ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"kafka.sasl_oauth_cafile = {authority}: not a certificate in PEM format; it must "
            "begin with -----BEGIN CERTIFICATE-----"
        ) from error
