"""The options of each SASL mechanism: what it needs, takes and excludes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worker.errors import SettingsError
from worker.settings import load, plain_values

OAUTH = {"kafka.security_protocol": "SASL_SSL", "kafka.sasl_mechanism": "OAUTHBEARER"}
ENDPOINT = OAUTH | {
    "kafka.sasl_oauth_token_url": "https://idp.example/token",
    "kafka.sasl_oauth_client_id": "me",
    "kafka.sasl_oauth_client_secret": "hunter2",
}
TOKEN_FILE = OAUTH | {"kafka.sasl_oauth_token_file": "/run/token"}


def refusal(flags: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as refused:
        load(flags, environ={})
    assert "hunter2" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            OAUTH,
            "'OAUTHBEARER' needs kafka.sasl_oauth_token_url, a token endpoint, or kafka.sasl_oauth",
        ),
        (
            ENDPOINT | TOKEN_FILE,
            "kafka.sasl_oauth_token_url and kafka.sasl_oauth_token_file are both set",
        ),
        (
            OAUTH | {"kafka.sasl_oauth_token_url": "https://idp.example/token"},
            "needs kafka.sasl_oauth_client_id, kafka.sasl_oauth_client_secret",
        ),
        (
            TOKEN_FILE | {"kafka.sasl_oauth_scope": "kafka"},
            "kafka.sasl_oauth_scope set, but kafka.sasl_oauth_token_file needs no token endpoint",
        ),
        (
            ENDPOINT | {"kafka.sasl_username": "me", "kafka.sasl_password": "hunter2"},
            "kafka.sasl_username, kafka.sasl_password set, but kafka.sasl_mechanism = 'OAUTHBEARER'",
        ),
        (
            ENDPOINT | {"kafka.sasl_mechanism": "PLAIN"},
            "kafka.sasl_mechanism = 'PLAIN' needs kafka.sasl_username, kafka.sasl_password",
        ),
        (
            {"kafka.sasl_oauth_client_auth": "post"},
            "kafka.sasl_oauth_client_auth set, but kafka.security_protocol = 'PLAINTEXT'",
        ),
        (
            ENDPOINT | {"kafka.sasl_oauth_token_url": "https://me:hunter2@idp.example"},
            "kafka.sasl_oauth_token_url: has a user or a password in it",
        ),
        *(
            (
                ENDPOINT | {"kafka.sasl_oauth_token_url": f"http://idp.example/token{more}hunter2"},
                "kafka.sasl_oauth_token_url: has a query or a fragment: set kafka.sasl_oauth_parameters",
            )
            for more in "?#"
        ),
        (
            ENDPOINT | {"kafka.sasl_oauth_parameters": "client_secret=hunter2"},
            "kafka.sasl_oauth_parameters: client_secret is set by kafka.sasl_oauth_client_secret",
        ),
        (
            ENDPOINT | {"kafka.sasl_oauth_token_url": "idp.example/token"},
            "kafka.sasl_oauth_token_url: must be https://HOST/PATH",
        ),
        (
            ENDPOINT | {"kafka.sasl_oauth_token_url": "https://[::1"},
            "kafka.sasl_oauth_token_url: must be https://HOST/PATH",
        ),
        (
            ENDPOINT | {"kafka.sasl_oauth_parameters": "audience"},
            "must be name=value pairs, comma-separated",
        ),
        (ENDPOINT | {"kafka.sasl_oauth_parameters": {"a": 1}}, "must be a table of strings"),
        (ENDPOINT | {"kafka.sasl_oauth_parameters": ["a"]}, "must be a table of strings"),
        (ENDPOINT | {"kafka.sasl_oauth_extensions": "a_b=c"}, "'a_b' is no name of an extension"),
        (ENDPOINT | {"kafka.sasl_oauth_extensions": "auth=c"}, "'auth' is no name"),
        (
            ENDPOINT | {"kafka.sasl_oauth_extensions": {"a": "\x01"}},
            "the value of a must consist of printable ASCII",
        ),
        (
            ENDPOINT | {"kafka.sasl_oauth_parameters": "scope=a"},
            "scope is set by kafka.sasl_oauth_scope",
        ),
    ],
)
def test_a_missing_or_useless_option_is_named(flags: dict[str, Any], expected: str) -> None:
    assert expected in refusal(flags)


@pytest.mark.parametrize("flags", [ENDPOINT, TOKEN_FILE])
def test_what_a_mechanism_needs_is_enough(flags: dict[str, Any]) -> None:
    loaded = load(flags, environ={})
    assert loaded.warnings == ()


def test_a_table_has_the_same_value_in_a_file_and_in_a_variable(tmp_path: Path) -> None:
    config = tmp_path / "streamlabel.toml"
    config.write_text('[kafka.sasl_oauth_extensions]\nlogicalCluster = "lkc-1"\npool = "p=1"\n')
    environ = {"STREAMLABEL_KAFKA_SASL_OAUTH_EXTENSIONS": " logicalCluster = lkc-1, pool=p=1,"}
    in_file = load(ENDPOINT, config, environ={}).settings
    assert in_file == load(ENDPOINT, environ=environ).settings
    assert in_file.kafka.sasl_oauth_extensions == {"logicalCluster": "lkc-1", "pool": "p=1"}
    assert len({in_file.kafka, load(ENDPOINT, environ=environ).settings.kafka}) == 1
    given = json.loads(json.dumps(plain_values(in_file)))  # as a pool's parent hands them on
    assert load(given, environ={}).settings == in_file


@pytest.mark.parametrize(
    ("url", "doubtful"),
    [
        ("http://idp.example/token", True),
        ("http://10.0.0.1/token", True),
        ("http://localhost:8080/token", False),
        ("http://127.0.0.2:8080/token", False),
        ("http://[::1]:8080/token", False),
    ],
)
def test_an_unencrypted_endpoint_on_a_network_is_a_warning(url: str, doubtful: bool) -> None:
    warnings = load(ENDPOINT | {"kafka.sasl_oauth_token_url": url}, environ={}).warnings
    assert len(warnings) == doubtful
    assert all("sends the client secret unencrypted: use https" in line for line in warnings)
