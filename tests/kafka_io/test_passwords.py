"""A password in a file may be replaced while clients are connected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import RetriableError, SaslAuthenticationFailedError
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from worker.kafka_io.password import Password, PasswordRefused
from worker.kafka_io.sign_in import password_of, sasl_options
from worker.settings import FileSecret, KafkaSettings, load


class Broker:
    """Knows one password, and counts attempts."""

    def __init__(self) -> None:
        self.knows = "old"
        self.config: dict[str, Any] = {}
        self.attempts = 0

    async def __call__(self, _: float | None) -> None:
        self.attempts += 1
        if self.config["sasl_plain_password"] != self.knows:
            raise SaslAuthenticationFailedError("SaslAuthenticationFailedError: wrong password")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("old\n")
    return file


@pytest.fixture
def password(file: Path, clock: HandClock) -> Password:
    return Password(FileSecret("old", file), clock)


def sign_in(password: Password, broker: Broker) -> None:
    """Run one sign-in, which waits for nothing."""
    with pytest.raises(StopIteration):
        password.sign_in(broker.config, broker, 1.0).send(None)


def refused(password: Password, broker: Broker) -> PasswordRefused:
    with pytest.raises(PasswordRefused) as raised:
        sign_in(password, broker)
    return raised.value


def test_a_replaced_password_is_used_for_the_next_sign_in(password: Password, file: Path) -> None:
    broker = Broker()
    sign_in(password, broker)
    broker.knows = "new"
    file.write_text("new\n")
    sign_in(password, broker)
    assert broker.config["sasl_plain_password"] == "new"


def test_the_first_refusal_of_a_password_is_final(password: Password) -> None:
    broker = Broker()
    broker.knows = "new"
    with pytest.raises(SaslAuthenticationFailedError) as raised:
        sign_in(password, broker)
    assert not isinstance(raised.value, PasswordRefused)


def test_a_later_refusal_counts_as_a_lost_connection(password: Password, file: Path) -> None:
    broker = Broker()
    sign_in(password, broker)
    broker.knows = "new"
    with capture_logs() as lines:
        error = refused(password, broker)
        refused(password, broker)
    assert isinstance(error, RetriableError)
    assert f"is it being replaced in {file}?" in str(error)
    assert [(line["answer"], line["file"]) for line in lines] == [("wrong password", str(file))]


def test_a_refused_password_is_sent_again_after_some_seconds_and_a_new_one_at_once(
    password: Password, file: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.kafka_io.password.backoff", lambda attempt, base: base * attempt)
    broker = Broker()
    sign_in(password, broker)
    broker.knows = "new"
    for _ in range(100):
        refused(password, broker)
    assert broker.attempts == 2
    clock.now += 1
    refused(password, broker)
    assert broker.attempts == 3
    clock.now += 1.9
    refused(password, broker)
    assert broker.attempts == 3, "the wait grows"
    file.write_text("new")
    sign_in(password, broker)
    assert broker.attempts == 4


@pytest.mark.parametrize("broken", [Path.unlink, lambda file: file.write_text("")])
def test_while_the_file_has_no_password_the_one_of_the_start_is_used(
    password: Password, file: Path, broken: Callable[[Path], Any]
) -> None:
    broken(file)
    broker = Broker()
    sign_in(password, broker)
    assert broker.config["sasl_plain_password"] == "old"


def test_clients_of_a_user_share_a_password_that_is_in_a_file(file: Path) -> None:
    def settings(password: Any, **more: str) -> KafkaSettings:
        return KafkaSettings(
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="me",
            sasl_password=password,
            **more,
        )

    in_file = FileSecret("old", file)
    shared = password_of(settings(in_file))
    assert shared is password_of(settings(in_file, client_id="another"))
    assert isinstance(shared, Password)
    assert password_of(settings("old")) is None
    file.write_text("new")
    assert sasl_options(settings(in_file))["sasl_plain_password"] == "new"


def test_settings_name_the_file_of_a_password(file: Path) -> None:
    flags = {
        "kafka.security_protocol": "SASL_SSL",
        "kafka.sasl_mechanism": "PLAIN",
        "kafka.sasl_username": "me",
    }
    loaded = load(flags, environ={"STREAMLABEL_KAFKA_SASL_PASSWORD_FILE": str(file)})
    assert password_of(loaded.settings.kafka) is not None
