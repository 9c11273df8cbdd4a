"""The options of the registry: what is refused, and that no secret is shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.registry.stub import CERTIFICATES
from worker.errors import SettingsError
from worker.settings import Settings, load

ENCRYPTED = str(CERTIFICATES / "encrypted.pem")
VALID = str(CERTIFICATES / "valid.pem")


def loaded(url: str = "https://r:8081", **values: str) -> Settings:
    flags: dict[str, Any] = {"registry.url": url}
    return load(
        flags | {f"registry.{name}": value for name, value in values.items()}, environ={}
    ).settings


def refusal(url: str = "https://r:8081", **values: str) -> str:
    with pytest.raises(SettingsError) as refused:
        loaded(url, **values)
    return str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://r",
        "https://r:8081/apis/ccompat/v7/",
        "http://a:1, http://[::1]:2",
        "https://ü.example",
    ],
)
def test_addresses_are_taken(url: str) -> None:
    assert loaded(url).registry.url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@r:8081",
        "http://r:8081,http://hunter2@r",
        "http://me:hunter2/@r",
        "hunter2@r",
        "http://r?token=hunter2",
        "http://r/#hunter2",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_shown(url: str) -> None:
    said = refusal(url)
    assert "registry.url" in said
    assert "set registry." in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "url",
    ["r:8081", "ftp://r", "http://", "http://r:port", "http://r:99999", "http://[::1", "http://a,"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    assert "is not http://HOST:PORT or https://HOST:PORT" in refusal(url)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"token": "hunter2\n"}, "registry.token must consist of printable ASCII"),
        ({"token": "hunter2 x"}, "registry.token must consist of printable ASCII"),
        (
            {"token": "hunter2", "username": "me"},
            "registry.token and registry.username are both set",
        ),
        ({"password": "hunter2"}, "registry.password needs registry.username"),
        ({"username": "m:e", "password": "hunter2"}, "registry.username has a colon in it"),
        ({"ssl_keyfile": VALID}, "registry.ssl_keyfile needs registry.ssl_certfile"),
        (
            {"ssl_certfile": VALID, "ssl_keyfile": ENCRYPTED},
            f"registry.ssl_keyfile = {ENCRYPTED} is encrypted: set registry.ssl_key_password",
        ),
        (
            {"url": "http://r", "ssl_cafile": VALID},
            "registry.ssl_cafile set, but registry.url is not an address with https://",
        ),
    ],
)
def test_values_that_make_no_sense_together_are_refused(values: dict[str, str], said: str) -> None:
    refused = refusal(**values)
    assert said in refused
    assert "hunter2" not in refused


@pytest.mark.parametrize(
    "values",
    [
        {"token": "abc.def"},
        {"username": "me", "password": "hunter2 ü"},
        {"username": "me"},
        {"ssl_certfile": VALID, "ssl_keyfile": ENCRYPTED, "ssl_key_password": "password"},
    ],
)
def test_each_sign_in_is_taken(values: dict[str, str]) -> None:
    loaded(**values)
