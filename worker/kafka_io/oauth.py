"""Signs in by OAUTHBEARER (RFC 7628).

Owns: the providers of tokens, one for each cluster's settings.
Thread: any.
Must not import: inference, runtime.
"""

from __future__ import annotations

import threading
from typing import Any

from worker.clock import Clock, SystemClock
from worker.errors import AccessDenied, SettingsError
from worker.kafka_io.causes import Diagnosis
from worker.kafka_io.token_file import TokenFile
from worker.kafka_io.tokens import RenewedToken, TokenProvider, TokenSource, brokers_words
from worker.settings import KafkaSettings

MECHANISM = "OAUTHBEARER"
MSK = "AWS_MSK_IAM"  # brokers of Amazon MSK take its tokens by OAUTHBEARER

_providers: dict[KafkaSettings, TokenProvider] = {}
_lock = threading.Lock()


def provider_of(kafka: KafkaSettings) -> TokenProvider | None:
    """Return the provider of these settings' tokens, or None if they sign in otherwise.

    Raises:
        SettingsError: a file that the settings name can't be used; an extra is missing; no region.
    """
    if kafka.sasl_mechanism not in (MECHANISM, MSK):
        return None
    with _lock:
        if kafka not in _providers:
            _providers[kafka] = _provider(kafka)
        return _providers[kafka]


def _provider(kafka: KafkaSettings) -> TokenProvider:
    extensions, clock = kafka.sasl_oauth_extensions, SystemClock()
    if kafka.sasl_mechanism == MSK:
        return RenewedToken(_msk_tokens(kafka, clock), extensions, clock)
    if kafka.sasl_oauth_token_file:
        return TokenFile(kafka.sasl_oauth_token_file, extensions, clock)
    from worker.kafka_io.token_endpoint import TokenEndpoint  # noqa: PLC0415 - few need HTTP

    return RenewedToken(TokenEndpoint(kafka, clock), extensions, clock)


def _msk_tokens(kafka: KafkaSettings, clock: Clock) -> TokenSource:
    try:
        from worker.kafka_io.msk import MskTokens  # noqa: PLC0415 - the extra `aws`
    except ImportError as error:
        raise SettingsError(
            "kafka.sasl_mechanism = 'AWS_MSK_IAM' needs the extra `aws`: "
            f"pip install 'streamlabel[aws]' ({error})"
        ) from error
    return MskTokens(kafka, clock)


def refused_token(provider: TokenProvider, error: Exception) -> Diagnosis:
    """Return why the first sign-in failed, in the broker's words and with the token's claims."""
    return Diagnosis(
        AccessDenied,
        f"the broker refuses the token: {brokers_words(error)} (token: "
        f"{provider.in_words()}); compare that with what the broker expects",
    )


def oauth_options(provider: TokenProvider) -> dict[str, Any]:
    """Return the library's options for sign-in."""
    return {"sasl_mechanism": MECHANISM, "sasl_oauth_token_provider": provider}
