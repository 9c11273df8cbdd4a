"""Secrets: from files as well as variables, and never shown, not even under a misspelt name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.cli.main import main
from worker.errors import SettingsError
from worker.kafka_io.connection import client_options
from worker.settings import Settings, load, plain_values

SECRET = "hunter2"
VARIABLE = "STREAMLABEL_KAFKA_SASL_PASSWORD"
SASL = {
    "kafka.security_protocol": "SASL_PLAINTEXT",
    "kafka.sasl_mechanism": "PLAIN",
    "kafka.sasl_username": "me",
}
# Neither is a key; a key's first lines are all that is looked at.
ENCRYPTED = (
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n",
)
PLAIN = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


def password(settings: Settings) -> str:
    found = settings.kafka.sasl_password
    assert found is not None
    return found.get_secret_value()


def refusal(flags: dict[str, Any] | None = None, **more: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        load(flags, **{"environ": {}} | more)
    return str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        '[kafka]\nsasl_pasword = "hunter2"\n',
        'sasl_password = "hunter2"\n',
        '[kafkaa]\nsasl_password = "hunter2"\n',
        '[kafka.sasl]\npassword = "hunter2"\n',
        '[[kafka]]\nsasl_password = "hunter2"\n',
        'kafka = "hunter2"\n',
        '[kafka.client_id]\nsasl_password = "hunter2"\n',
        'kafka.client_id = [{sasl_password = "hunter2"}]\n',
        '[kafka.sasl_password]\nvalue = "hunter2"\n',
    ],
)
def test_the_value_of_an_unknown_setting_is_not_shown(tmp_path: Path, content: str) -> None:
    """It may be a secret whose name is misspelt, or stands in the wrong table."""
    config = tmp_path / "s.toml"
    config.write_text(content)
    assert SECRET not in refusal(config=config)


@pytest.mark.parametrize(
    "words", [["--kafka-sasl-pasword", SECRET], [f"--sasl={SECRET}"], [SECRET]]
)
def test_nor_is_that_of_an_unknown_flag(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["run", *words])
    told = capsys.readouterr().err
    assert "unrecognized arguments" in told
    assert SECRET not in told


def test_a_value_that_is_shown_is_short() -> None:
    assert len(refusal({"delivery": "x" * 100_000})) < 1_000


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file(tmp_path: Path, ending: str) -> None:
    """Without the line break that editors and `echo` leave; spaces are the secret's own."""
    file = tmp_path / "password"
    file.write_bytes(f" {SECRET} {ending}".encode())
    loaded = load(SASL, environ={f"{VARIABLE}_FILE": str(file)})
    assert password(loaded.settings) == f" {SECRET} "
    assert loaded.origins["kafka.sasl_password"] == f"environment {VARIABLE}_FILE"
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "is no UTF-8 text"),
        (b"hunter2" * 20_000, "larger than 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused_by_name(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    told = refusal(SASL, environ={f"{VARIABLE}_FILE": str(file)})
    assert f"{VARIABLE}_FILE" in told
    assert str(file) in told
    assert words in told
    assert SECRET not in told


def test_a_secret_that_is_said_twice_is_refused(tmp_path: Path) -> None:
    told = refusal(SASL, environ={VARIABLE: SECRET, f"{VARIABLE}_FILE": str(tmp_path / "x")})
    assert told == f"{VARIABLE} and {VARIABLE}_FILE are both set: unset one of them"


def test_only_secrets_come_from_files_of_their_own() -> None:
    loaded = load(environ={"STREAMLABEL_INPUT_TOPIC_FILE": "/nowhere"})
    (warning,) = loaded.warnings
    assert "STREAMLABEL_INPUT_TOPIC_FILE is no setting" in warning


def test_a_directory_of_secrets_is_read_as_pydantic_settings_does(tmp_path: Path) -> None:
    """A file is named as the variable is, in any case; a mounted one has hidden folders beside."""
    (tmp_path / "..data").mkdir()
    (tmp_path / VARIABLE.lower()).write_text(f"{SECRET}\n")
    (tmp_path / "kafka_bootstrap_servers").write_text("a:1\n")
    (tmp_path / "STREAMLABEL_KAFKA_GROUP_ID").write_text("from the directory")
    (tmp_path / "streamlabel_kafka_client_id").write_text("")
    (tmp_path / "another_programs").write_bytes(b"\xff")
    environ = {"STREAMLABEL_SECRETS_DIR": str(tmp_path), "STREAMLABEL_KAFKA_GROUP_ID": "said"}
    loaded = load(SASL, environ=environ)
    kafka = loaded.settings.kafka
    assert password(loaded.settings) == SECRET
    assert (kafka.bootstrap_servers, kafka.group_id) == ("a:1", "said")
    assert kafka.client_id == "streamlabel"
    assert loaded.origins["kafka.sasl_password"] == f"file {tmp_path / VARIABLE.lower()}"
    assert loaded.warnings == ()


def test_a_directory_of_secrets_that_is_none_is_refused(tmp_path: Path) -> None:
    told = refusal(environ={"STREAMLABEL_SECRETS_DIR": str(tmp_path / "no")})
    assert told.startswith(f"STREAMLABEL_SECRETS_DIR = {tmp_path / 'no'}: can't be read")


@pytest.mark.parametrize("key", ENCRYPTED)
@pytest.mark.parametrize("option", ["ssl_keyfile", "ssl_certfile"])
def test_an_encrypted_key_without_its_password_is_said_at_once(
    tmp_path: Path, key: str, option: str
) -> None:
    """OpenSSL would ask on the terminal. The certificate's file may hold the key too."""
    file, other = tmp_path / "key.pem", tmp_path / "other.pem"
    file.write_text(key)
    other.write_text(PLAIN)
    given = {"kafka.security_protocol": "SSL", "kafka.ssl_certfile": str(other)}
    given |= {f"kafka.{option}": str(file)}
    told = refusal(given)
    assert f"the key in kafka.{option} = {file} is encrypted: set kafka.ssl_key_password" in told
    settings = load(given | {"kafka.ssl_key_password": SECRET}, environ={}).settings
    assert client_options(settings.kafka)["ssl_password"] == SECRET
    assert load(plain_values(settings), environ={}).settings == settings


def test_openssl_never_asks_for_a_password(tmp_path: Path) -> None:
    """An empty one is refused by it; none at all makes it ask on the terminal."""
    file = tmp_path / "both.pem"
    file.write_text(PLAIN)
    given = {"kafka.security_protocol": "SSL", "kafka.ssl_certfile": str(file)}
    settings = load(given, environ={}).settings
    assert client_options(settings.kafka)["ssl_password"] == ""


def test_a_keys_password_without_a_key_is_refused() -> None:
    told = refusal({"kafka.security_protocol": "SSL", "kafka.ssl_key_password": SECRET})
    assert "kafka.ssl_key_password needs kafka.ssl_certfile" in told
    assert SECRET not in told
