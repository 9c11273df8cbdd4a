"""SASL: the options of each mechanism, its preparation, and the reason of a refusal.

Owns: the passwords of this process, one for each user of a cluster.
Thread: any; `prepare_sign_in` blocks for some seconds.
Must not import: inference, runtime.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from worker.clock import SystemClock
from worker.errors import AccessDenied
from worker.kafka_io.causes import Diagnosis
from worker.kafka_io.kerberos import kerberos_options, require_ticket
from worker.kafka_io.oauth import MSK, oauth_options, provider_of, refused_token
from worker.kafka_io.password import Password
from worker.kafka_io.tokens import brokers_words
from worker.settings import FileSecret, KafkaSettings, current

_KERBEROS = "GSSAPI"
_CHECK = {
    MSK: "the AWS credentials: {}; check kafka.sasl_aws_region, this machine's clock, and that a "
    "policy allows kafka-cluster:Connect",
    _KERBEROS: "the Kerberos ticket: {}; check kafka.sasl_kerberos_service_name, and that the broker "
    "knows this principal",
}


_passwords: dict[tuple[str, str | None, Path], Password] = {}
_lock = threading.Lock()


def password_of(kafka: KafkaSettings) -> Password | None:
    """Return the password of these settings, or None if it is in no file of its own.

    Each client of a user has the same one, so that they know together that it was accepted.
    """
    secret = kafka.sasl_password
    if not isinstance(secret, FileSecret):
        return None
    key = kafka.bootstrap_servers, kafka.sasl_username, secret.file
    with _lock:
        return _passwords.setdefault(key, Password(secret, SystemClock()))


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
        "sasl_plain_password": current(kafka.sasl_password),
    }


def refused_sign_in(kafka: KafkaSettings, error: Exception) -> Diagnosis | None:
    """Return why the first sign-in failed, or None for a user name and a password."""
    if check := _CHECK.get(kafka.sasl_mechanism or ""):
        refused = check.format(brokers_words(error))
        return Diagnosis(AccessDenied, f"the broker refuses {refused}")
    provider = provider_of(kafka)
    return refused_token(provider, error) if provider else None
