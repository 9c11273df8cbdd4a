"""The options of each SASL mechanism.

Owns: which options a mechanism needs, takes and excludes.
Thread: main, while the settings are loaded.
Must not import: anything of worker but `kafka_client`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from worker.settings.kafka_client import KafkaSettings

Check = Callable[[KafkaSettings], Iterator[str]]

_PASSWORD: Final = ("sasl_username", "sasl_password")
_ENDPOINT: Final = (
    "sasl_oauth_token_url",
    "sasl_oauth_client_id",
    "sasl_oauth_client_secret",
    "sasl_oauth_client_auth",
    "sasl_oauth_scope",
    "sasl_oauth_parameters",
    "sasl_oauth_cafile",
)


def sign_in(k: KafkaSettings) -> Iterator[str]:
    """Yield one sentence for each option of SASL that is missing, or has no use."""
    used = present(k, (name for name in type(k).model_fields if name.startswith("sasl_")))
    if not k.security_protocol.startswith("SASL"):
        if used:
            yield (
                f"{listed(used)} set, but kafka.security_protocol = {k.security_protocol!r}: "
                "use SASL_SSL or SASL_PLAINTEXT"
            )
        return
    if k.sasl_mechanism is None:
        yield f"kafka.security_protocol = {k.security_protocol!r} needs kafka.sasl_mechanism"
        return
    takes, check = _MECHANISMS[k.sasl_mechanism]
    unused = [name for name in used if name not in (*takes, "sasl_mechanism")]
    if unused:
        yield (
            f"{listed(unused)} set, but kafka.sasl_mechanism = {k.sasl_mechanism!r} has no use for "
            "it"
        )
    yield from check(k)


def doubts(k: KafkaSettings) -> Iterator[str]:
    """Yield a warning if the client secret would cross a network unencrypted."""
    url = urlsplit(k.sasl_oauth_token_url or "")
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        yield (
            f"kafka.sasl_oauth_token_url = {k.sasl_oauth_token_url!r} sends the client secret "
            "unencrypted: use https"
        )


def _password(k: KafkaSettings) -> Iterator[str]:
    yield from _needs(k, _PASSWORD)


def _oauth(k: KafkaSettings) -> Iterator[str]:
    if k.sasl_oauth_token_url and k.sasl_oauth_token_file:
        yield "kafka.sasl_oauth_token_url and kafka.sasl_oauth_token_file are both set: unset one"
    elif k.sasl_oauth_token_url:
        yield from _needs(k, ("sasl_oauth_client_id", "sasl_oauth_client_secret"))
    elif not k.sasl_oauth_token_file:
        yield (
            "kafka.sasl_mechanism = 'OAUTHBEARER' needs kafka.sasl_oauth_token_url, a token "
            "endpoint, or kafka.sasl_oauth_token_file"
        )
    elif unused := present(k, _ENDPOINT):
        yield f"{listed(unused)} set, but kafka.sasl_oauth_token_file needs no token endpoint"


def _aws(k: KafkaSettings) -> Iterator[str]:
    if k.security_protocol != "SASL_SSL":  # a token read on the way would sign others in
        yield "kafka.sasl_mechanism = 'AWS_MSK_IAM' needs kafka.security_protocol = 'SASL_SSL'"


def _needs(k: KafkaSettings, names: Iterable[str]) -> Iterator[str]:
    missing = [name for name in names if not getattr(k, name)]
    if missing:
        yield f"kafka.sasl_mechanism = {k.sasl_mechanism!r} needs {listed(missing)}"


def present(k: KafkaSettings, names: Iterable[str]) -> list[str]:
    """Return the options that differ from their defaults."""
    fields = type(k).model_fields
    return [name for name in names if getattr(k, name) != fields[name].default]


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"kafka.{name}" for name in names)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# Mechanism -> the options that it takes, and the check of them.
_MECHANISMS: Final[Mapping[str, tuple[tuple[str, ...], Check]]] = {
    "PLAIN": (_PASSWORD, _password),
    "SCRAM-SHA-256": (_PASSWORD, _password),
    "SCRAM-SHA-512": (_PASSWORD, _password),
    "OAUTHBEARER": ((*_ENDPOINT, "sasl_oauth_token_file", "sasl_oauth_extensions"), _oauth),
    "AWS_MSK_IAM": (("sasl_aws_region", "sasl_aws_profile", "sasl_aws_role_arn"), _aws),
    "GSSAPI": (("sasl_kerberos_service_name", "sasl_kerberos_domain_name"), lambda _: iter(())),
}
