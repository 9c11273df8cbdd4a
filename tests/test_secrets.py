"""Secrets: read from files and variables, and never shown, even under a misspelt name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.cli.main import main
from worker.errors import SettingsError
from worker.settings import Settings, load, plain_values

SECRET = "hunter2"
VARIABLE = "STREAMLABEL_KAFKA_SASL_PASSWORD"
SASL = {
    "kafka.security_protocol": "SASL_PLAINTEXT",
    "kafka.sasl_mechanism": "PLAIN",
    "kafka.sasl_username": "me",
}
# Not real keys: only the first lines are examined.
ENCRYPTED = (
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n",
)
PLAIN = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


def password(settings: Settings) -> str:
    secret = settings.kafka.sasl_password
    assert secret is not None
    return secret.get_secret_value()


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
    """The name may be misspelt or in the wrong table, and the value a secret."""
    config = tmp_path / "s.toml"
    config.write_text(content)
    assert SECRET not in refusal(config=config)


@pytest.mark.parametrize(
    "arguments", [["--kafka-sasl-pasword", SECRET], [f"--sasl={SECRET}"], [SECRET]]
)
def test_the_value_of_an_unknown_flag_is_not_shown(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["run", *arguments])
    errors = capsys.readouterr().err
    assert "unrecognized arguments" in errors
    assert SECRET not in errors


def test_a_long_value_is_cut() -> None:
    assert len(refusal({"delivery": "x" * 100_000})) < 1_000


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_a_file(tmp_path: Path, ending: str) -> None:
    """The final line break, left by editors and `echo`, is removed; spaces are kept."""
    file = tmp_path / "password"
    file.write_bytes(f" {SECRET} {ending}".encode())
    loaded = load(SASL, environ={f"{VARIABLE}_FILE": str(file)})
    assert password(loaded.settings) == f" {SECRET} "
    assert loaded.origins["kafka.sasl_password"] == f"environment {VARIABLE}_FILE"
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "is not UTF-8"),
        (b"hunter2" * 20_000, "larger than 65536 bytes"),
    ],
)
def test_a_file_without_a_secret_is_refused_by_name(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    message = refusal(SASL, environ={f"{VARIABLE}_FILE": str(file)})
    assert f"{VARIABLE}_FILE" in message
    assert str(file) in message
    assert expected in message
    assert SECRET not in message


def test_a_secret_with_two_origins_is_refused(tmp_path: Path) -> None:
    message = refusal(SASL, environ={VARIABLE: SECRET, f"{VARIABLE}_FILE": str(tmp_path / "x")})
    assert message == f"{VARIABLE} and {VARIABLE}_FILE are both set: unset one of them"


def test_only_secrets_may_have_a_file_of_their_own() -> None:
    loaded = load(environ={"STREAMLABEL_INPUT_TOPIC_FILE": "/nowhere"})
    (warning,) = loaded.warnings
    assert "STREAMLABEL_INPUT_TOPIC_FILE is not a setting" in warning


def test_a_directory_of_secrets_is_read_as_pydantic_settings_does(tmp_path: Path) -> None:
    """Files are named like variables, in any case; a mounted directory has hidden folders too."""
    (tmp_path / "..data").mkdir()
    (tmp_path / VARIABLE.lower()).write_text(f"{SECRET}\n")
    (tmp_path / "kafka_bootstrap_servers").write_text("a:1\n")
    (tmp_path / "STREAMLABEL_KAFKA_GROUP_ID").write_text("from the directory")
    (tmp_path / "streamlabel_kafka_client_id").write_text("")
    (tmp_path / "another_programs").write_bytes(b"\xff")
    environ = {"STREAMLABEL_SECRETS_DIR": str(tmp_path), "STREAMLABEL_KAFKA_GROUP_ID": "variable"}
    loaded = load(SASL, environ=environ)
    kafka = loaded.settings.kafka
    assert password(loaded.settings) == SECRET
    assert (kafka.bootstrap_servers, kafka.group_id) == ("a:1", "variable")
    assert kafka.client_id == "streamlabel"
    assert loaded.origins["kafka.sasl_password"] == f"file {tmp_path / VARIABLE.lower()}"
    assert loaded.warnings == ()


def test_a_missing_directory_of_secrets_is_refused(tmp_path: Path) -> None:
    message = refusal(environ={"STREAMLABEL_SECRETS_DIR": str(tmp_path / "no")})
    assert message.startswith(f"STREAMLABEL_SECRETS_DIR = {tmp_path / 'no'}: can't be read")


@pytest.mark.parametrize("key", ENCRYPTED)
@pytest.mark.parametrize("option", ["ssl_keyfile", "ssl_certfile"])
def test_an_encrypted_key_without_its_password_is_refused_at_start(
    tmp_path: Path, key: str, option: str
) -> None:
    """OpenSSL would prompt on the terminal. The certificate's file may hold the key too."""
    file, other = tmp_path / "key.pem", tmp_path / "other.pem"
    file.write_text(key)
    other.write_text(PLAIN)
    flags = {"kafka.security_protocol": "SSL", "kafka.ssl_certfile": str(other)}
    flags |= {f"kafka.{option}": str(file)}
    message = refusal(flags)
    assert f"the key in kafka.{option} = {file} is encrypted: set kafka.ssl_key_password" in message
    settings = load(flags | {"kafka.ssl_key_password": SECRET}, environ={}).settings
    assert load(plain_values(settings), environ={}).settings == settings


def test_a_key_password_without_a_key_is_refused() -> None:
    message = refusal({"kafka.security_protocol": "SSL", "kafka.ssl_key_password": SECRET})
    assert "kafka.ssl_key_password needs kafka.ssl_certfile" in message
    assert SECRET not in message
