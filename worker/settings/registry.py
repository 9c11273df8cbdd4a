"""The options that reach the schema registry, and name what is registered.

Owns: `RegistrySettings` and the check of its addresses.
Thread: any; the values are frozen.
Must not import: anything of worker but `section`.
"""

from __future__ import annotations

import warnings
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, field_validator

from worker.settings.section import Section

# An abstract class has a method of this name, which no section needs.
warnings.filterwarnings("ignore", message='Field name "register" in "RegistrySettings"')


class RegistrySettings(Section):
    """The schema registry of `avro`, `json_schema`, `protobuf` and `auto`."""

    url: str | None = Field(
        None,
        description="Address of the schema registry: `http` or `https`, Confluent's API, no user or "
        "password in it. Comma-separated addresses are tried in turn.",
    )
    username: str | None = Field(None, description="User name, or API key, for basic sign-in.")
    password: SecretStr | None = Field(
        None, description="Password, or API secret, for basic sign-in. Prefer a file."
    )
    token: SecretStr | None = Field(
        None, min_length=1, description="Bearer token, instead of a user name. Prefer a file."
    )
    ssl_cafile: FilePath | None = Field(
        None, description="PEM file of the authority that signed the registry's certificate."
    )
    ssl_certfile: FilePath | None = Field(None, description="PEM file of the client certificate.")
    ssl_keyfile: FilePath | None = Field(
        None, description="PEM file of the client's private key, if not in `registry.ssl_certfile`."
    )
    ssl_key_password: SecretStr | None = Field(
        None, description="Password of an encrypted private key. Prefer a file or the environment."
    )
    timeout: float = Field(
        5.0,
        gt=0,
        le=300,
        description="Seconds to wait for an answer; then the request is repeated.",
    )
    cache_schemas: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="Schemas kept in memory, the last used ones; fewer if their texts have more "
        "than 64 MiB. A schema is asked for once while it is kept.",
    )
    register: bool = Field(
        True,
        description="Register the schemas of results. False only looks them up: the worker stops if "
        "one is missing.",
    )
    subject_name_strategy: Literal["topic_name", "record_name", "topic_record_name"] = Field(
        "topic_name",
        description="Subject under which a result's schema is registered. `topic_name`: "
        "`TOPIC-value`. `record_name`: the schema's full name. `topic_record_name`: both, `TOPIC-NAME`.",
    )

    @field_validator("url")
    @classmethod
    def _addresses(cls, value: str | None) -> str | None:
        """Refuse addresses that are none; never quote one that may have a secret in it."""
        for address in (value or "http://-").split(","):
            if "@" in address:
                raise ValueError(
                    "has a user or a password in it: set registry.username and registry.password"
                )
            if "?" in address or "#" in address:
                raise ValueError("has a query in it: set registry.token to sign in")
            if not _is_address(address.strip()):
                raise ValueError(
                    f"{address.strip()!r} is not http://HOST:PORT or https://HOST:PORT"
                )
        return value


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half of an IPv6 address
        return False
