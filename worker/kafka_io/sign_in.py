"""SASL: the options of each mechanism, its preparation, and the reason of a refusal.

Owns: nothing.
Thread: any; `prepare_sign_in` blocks for some seconds.
Must not import: inference, runtime.
"""

from __future__ import annotations

from typing import Any

from worker.errors import AccessDenied
from worker.kafka_io.causes import Diagnosis
from worker.kafka_io.kerberos import kerberos_options, require_ticket
from worker.kafka_io.oauth import MSK, oauth_options, provider_of, refused_token
from worker.kafka_io.tokens import brokers_words
from worker.settings import KafkaSettings

_KERBEROS = "GSSAPI"
_CHECK = {
    MSK: "the AWS credentials: {}; check kafka.sasl_aws_region, this machine's clock, and that a "
    "policy allows kafka-cluster:Connect",
    _KERBEROS: "the Kerberos ticket: {}; check kafka.sasl_kerberos_service_name, and that the broker "
    "knows this principal",
}


def prepare_sign_in(kafka: KafkaSettings) -> None:
    """Return once there is a token or a ticket, if the mechanism needs one.

    Raises:
        BrokerAway: there is none now; try again.
        AccessDenied: there is none, or the client is refused.
        Fatal: the place that gives tokens can't be trusted.
        SettingsError: an extra, a region or a file is missing.
    """
    if kafka.sasl_mechanism == _KERBEROS:
        require_ticket()
    elif provider := provider_of(kafka):
        provider.require()


def sasl_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the library's options for sign-in, none without SASL."""
    if provider := provider_of(kafka):
        return oauth_options(provider)
    if kafka.sasl_mechanism == _KERBEROS:
        return kerberos_options(kafka)
    if kafka.sasl_mechanism is None or kafka.sasl_password is None:
        return {}
    return {
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password.get_secret_value(),
    }


def refused_sign_in(kafka: KafkaSettings, error: Exception) -> Diagnosis | None:
    """Return why the first sign-in failed, or None for a user name and a password."""
    if check := _CHECK.get(kafka.sasl_mechanism or ""):
        refused = check.format(brokers_words(error))
        return Diagnosis(AccessDenied, f"the broker refuses {refused}")
    provider = provider_of(kafka)
    return refused_token(provider, error) if provider else None
