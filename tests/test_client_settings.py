"""Options of the library's clients: `[kafka.extra]`, a proxy, and values that conflict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from worker.cli.check import shown
from worker.errors import SettingsError
from worker.settings import KafkaSettings, client_extra, load, options, plain_values
from worker.settings.client_extra import KINDS, REPLACED, replacement

LIBRARY = set().union(
    *(client.DEFAULT_CONFIG for client in (KafkaAdminClient, KafkaConsumer, KafkaProducer))
)
SETTINGS = KafkaSettings.model_fields


def refusal(flags: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as refused:
        load(flags, environ={})
    return str(refused.value)


# -- [kafka.extra] -----------------------------------------------------------------------------


def test_every_option_of_the_library_is_accepted_or_has_a_replacement() -> None:
    """A new version of the library may bring options, and must not take one away."""
    undecided = {
        name for name in LIBRARY if (name in KINDS) == (replacement(name, SETTINGS) is not None)
    }
    assert undecided == set()
    known = {*KINDS, *(name for names in REPLACED.values() for name in names.split())}
    assert known - LIBRARY == set()


def test_a_replacement_names_a_setting() -> None:
    paths = {option.path for option in options()}
    for name in LIBRARY - set(KINDS):
        instead = replacement(name, SETTINGS)
        assert instead
        if instead.startswith("set "):
            first = instead.removeprefix("set ").replace(",", " ").split()[0]
            assert first in paths, name


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("retry_backoff_ms = 200", {"retry_backoff_ms": 200}),
        ("check_crcs = false", {"check_crcs": False}),
        ('api_version = "2.8"', {"api_version": (2, 8)}),
        (
            'client_dns_lookup = "resolve_canonical_bootstrap_servers_only"',
            {"client_dns_lookup": "resolve_canonical_bootstrap_servers_only"},
        ),
        ("", {}),
    ],
)
def test_a_table_of_the_file_has_the_librarys_values(
    content: str, values: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "s.toml"
    config.write_text(f"[kafka.extra]\n{content}\n")
    kafka = load(config=config, environ={}).settings.kafka
    assert client_extra.values(kafka.extra) == values


def test_a_flag_and_a_variable_have_pairs() -> None:
    line = "retry_backoff_ms = 200,check_crcs=true"
    for loaded in (
        load({"kafka.extra": line}, environ={}),
        load(environ={"STREAMLABEL_KAFKA_EXTRA": line}),
    ):
        expected = {"retry_backoff_ms": 200, "check_crcs": True}
        assert client_extra.values(loaded.settings.kafka.extra) == expected


def test_the_table_survives_the_way_to_a_child() -> None:
    settings = load({"kafka.extra": {"check_crcs": False, "api_version": "3.0"}}, environ={})
    received = json.loads(json.dumps(plain_values(settings.settings)))
    assert load(received, environ={}).settings == settings.settings


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            {"retry_backof_ms": 5},
            "retry_backof_ms is no option of the client library; did you mean",
        ),
        ({"zzz": 5}, "kafka.extra: zzz is no option of the client library (from flag"),
        ({"group_id": "x"}, "group_id is not for this table: set kafka.group_id"),
        ({"request_timeout_ms": 1}, "request_timeout_ms is not for this table: set kafka.request"),
        ({"bootstrap_servers": "a:1"}, "set kafka.bootstrap_servers"),
        ({"enable_auto_commit": True}, "the worker commits itself; set commit_interval"),
        ({"acks": 1}, "acks is not for this table: the worker sends what is ready"),
        ({"enable_idempotence": False}, "repeats it until it is acknowledged by all replicas"),
        ({"isolation_level": "read_uncommitted"}, "the worker reads committed records only"),
        ({"retry_backoff_ms": 0}, "retry_backoff_ms must be a whole number from 1 to 60000"),
        ({"retry_backoff_ms": "soon"}, "retry_backoff_ms must be a whole number"),
        ({"check_crcs": "maybe"}, "check_crcs must be true or false"),
        ({"check_crcs": 1}, "check_crcs must be true or false"),
        ({"api_version": "new"}, 'api_version must be a version in quotes, such as "2.8"'),
        ({"client_dns_lookup": "x"}, "client_dns_lookup must be one of use_all_dns_ips, resolve"),
        ({"api_version": [2, 8]}, "must be a table of strings"),
        ("check_crcs", "must be name=value pairs, comma-separated"),
        (3, "must be a table of strings"),
    ],
)
def test_an_option_that_is_not_accepted_is_named(table: Any, expected: str) -> None:
    assert expected in refusal({"kafka.extra": table})


@pytest.mark.parametrize(
    "table",
    [
        {"sasl_plain_password": "hunter2"},
        {"sasl_plain_pasword": "hunter2"},
        "sasl_plain_pasword=hunter2",
        "retry_backoff_ms=hunter2",
        "hunter2",
    ],
)
def test_no_refusal_quotes_a_value(table: Any) -> None:
    assert "hunter2" not in refusal({"kafka.extra": table})


# -- the other options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {"kafka.fetch_max_wait": 5, "kafka.request_timeout": 5},
            "kafka.fetch_max_wait (5) must be below kafka.request_timeout (5)",
        ),
        (
            {"kafka.fetch_max_bytes": 2000},
            (
                "kafka.fetch_max_bytes (2000), over all partitions, is less than "
                "kafka.max_partition_fetch_bytes (131072), of one"
            ),
        ),
        (
            {"kafka.reconnect_backoff": 9},
            "kafka.reconnect_backoff (9) is more than kafka.reconnect_backoff_max (5)",
        ),
        ({"kafka.ssl_crlfile": __file__}, "kafka.ssl_crlfile set, but kafka.security_protocol"),
        ({"kafka.ssl_check_hostname": False}, "kafka.ssl_check_hostname set, but kafka.security"),
        ({"kafka.ssl_ciphers": "HIGH"}, "use SSL or SASL_SSL"),
        ({"kafka.ssl_crlfile": "/no/crl.pem"}, "kafka.ssl_crlfile = '/no/crl.pem': no such file"),
        ({"kafka.fetch_max_wait": 60}, "must be a number from 0.01 to 30"),
    ],
)
def test_values_that_make_no_sense_together_are_named(flags: dict[str, Any], expected: str) -> None:
    assert expected in refusal(flags)


@pytest.mark.parametrize(
    "address", ["proxy:3128", "ftp://proxy:21", "http://proxy", "http://proxy:port", "http://:1"]
)
def test_what_is_no_proxy_is_refused_without_its_password(address: str) -> None:
    address = address.replace("://", "://me:hunter2@")
    message = refusal({"kafka.proxy_url": address})
    assert message.startswith("kafka.proxy_url: must be SCHEME://HOST:PORT; SCHEME is one of http")
    assert "hunter2" not in message


def test_a_proxys_password_is_not_shown() -> None:
    flags = {"kafka.proxy_url": "socks5h://me:hunter2@proxy:1080", "kafka.bootstrap_servers": "a:1"}
    settings = load(flags, environ={}).settings
    assert settings.kafka.route == "a:1 through the proxy proxy:1080"
    values = [shown(option, settings) for option in options()]
    assert not any("hunter2" in value for value in [*values, repr(settings)])
