"""Signs in by OAUTHBEARER (RFC 7628).

Owns: the providers of tokens, one for each cluster's settings.
Thread: any.
Must not import: inference, runtime.
"""

from __future__ import annotations

import threading
from typing import Any

from worker.clock import SystemClock
from worker.errors import AccessDenied
from worker.kafka_io.causes import Diagnosis
from worker.kafka_io.token_file import TokenFile
from worker.kafka_io.tokens import RenewedToken, TokenProvider, brokers_words
from worker.settings import KafkaSettings

MECHANISM = "OAUTHBEARER"

_providers: dict[KafkaSettings, TokenProvider] = {}
_lock = threading.Lock()


def provider_of(kafka: KafkaSettings) -> TokenProvider | None:
    """Return the provider of these settings' tokens, or None if they sign in otherwise.

    Raises:
        SettingsError: a file that the settings name can't be used.
    """
    if kafka.sasl_mechanism != MECHANISM:
        return None
    with _lock:
        if kafka not in _providers:
            _providers[kafka] = _provider(kafka)
        return _providers[kafka]


def _provider(kafka: KafkaSettings) -> TokenProvider:
    extensions, clock = kafka.sasl_oauth_extensions, SystemClock()
    if kafka.sasl_oauth_token_file:
        return TokenFile(kafka.sasl_oauth_token_file, extensions, clock)
    from worker.kafka_io.token_endpoint import TokenEndpoint  # noqa: PLC0415 - few need HTTP

    return RenewedToken(TokenEndpoint(kafka, clock), extensions, clock)


def refused_token(provider: TokenProvider, error: Exception) -> Diagnosis:
    """Return why the first sign-in failed, in the broker's words and with the token's claims."""
    return Diagnosis(
        AccessDenied,
        f"the broker refuses the token: {brokers_words(error)} (token: "
        f"{provider.in_words()}); it must have the issuer and the audience that the broker expects",
    )


def oauth_options(provider: TokenProvider) -> dict[str, Any]:
    """Return the library's options for sign-in."""
    return {"sasl_mechanism": MECHANISM, "sasl_oauth_token_provider": provider}
