"""Secrets: read from files and variables, and never shown, even under a misspelt name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worker.cli.check import shown
from worker.cli.main import main
from worker.errors import SettingsError
from worker.settings import Settings, changed_options, load, options, plain_values

SECRET = "hunter2"
VARIABLE = "STREAMLABEL_KAFKA_SASL_PASSWORD"
PARAMETERS = "STREAMLABEL_KAFKA_SASL_OAUTH_PARAMETERS"
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


def test_a_table_that_may_hold_a_secret_is_one(tmp_path: Path) -> None:
    """A client may sign in by a field of its own, such as `client_assertion`."""
    file = tmp_path / "parameters"
    file.write_text(f"audience=kafka,client_assertion={SECRET}\n")
    token = {"kafka.security_protocol": "SASL_SSL", "kafka.sasl_mechanism": "OAUTHBEARER"}
    token |= {"kafka.sasl_oauth_token_url": "https://idp.example/token"}
    token |= {"kafka.sasl_oauth_client_id": "me", "kafka.sasl_oauth_client_secret": "x"}
    loaded = load(token, environ={f"{PARAMETERS}_FILE": str(file)})
    kafka = loaded.settings.kafka
    assert kafka.sasl_oauth_parameters == {"audience": "kafka", "client_assertion": SECRET}
    assert loaded.warnings == ()
    (option,) = (o for o in options() if o.path == "kafka.sasl_oauth_parameters")
    assert shown(option, loaded.settings) == "(hidden)"
    assert shown(option, load(environ={}).settings) == "-", "an empty one hides nothing"
    assert SECRET not in repr(loaded.settings)
    assert load(plain_values(loaded.settings), environ={}).settings == loaded.settings
    assert SECRET not in refusal(environ={PARAMETERS: SECRET})


def test_a_child_reads_the_file_of_a_secret_itself(tmp_path: Path) -> None:
    """A pool's parent may start a child again long after the file was replaced."""
    file = tmp_path / "password"
    file.write_text("old")
    parent = load(SASL, environ={f"{VARIABLE}_FILE": str(file)}).settings
    handed_on = json.loads(json.dumps(plain_values(parent)))
    assert "old" not in json.dumps(handed_on)
    file.write_text(SECRET)
    assert password(load(handed_on, environ={}).settings) == SECRET
    file.unlink()
    with pytest.raises(SettingsError, match=r"settings of the parent process: .*No such file"):
        load(handed_on, environ={})


@pytest.mark.parametrize(
    ("path", "more", "needs_a_restart"),
    [("kafka.sasl_password", SASL, False), ("http.token", {"http.host": "0.0.0.0"}, True)],
)
def test_only_a_secret_that_is_not_read_again_needs_a_restart(
    tmp_path: Path, path: str, more: dict[str, Any], needs_a_restart: bool
) -> None:
    (option,) = (o for o in options() if o.path == path)
    variable = {f"{option.env[0]}_FILE": str(tmp_path / "secret")}
    (tmp_path / "secret").write_text("a-secret-of-24-characters")
    before = load(more, environ=variable).settings
    assert changed_options(before, load(more, environ=variable).settings) == []
    (tmp_path / "secret").write_text("another-one-of-24-letters")
    after = load(more, environ=variable).settings
    assert changed_options(before, after) == ([path] if needs_a_restart else [])
    moved = load({**more, path: "in-the-clear-24-characters"}, environ={}).settings
    assert changed_options(after, moved) == [path]


def test_a_file_for_an_option_without_a_secret_is_never_ignored_silently() -> None:
    ordinary = [f"{name}_FILE" for o in options() if not o.secret for name in o.env]
    ours = {name for name in ordinary if name.startswith("STREAMLABEL_")}
    warnings = load(environ=dict.fromkeys(ours, "/nowhere")).warnings
    assert {warning.split()[2] for warning in warnings} == ours


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
