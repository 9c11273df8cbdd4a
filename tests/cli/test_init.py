"""`streamlabel init` writes a settings file that loads and explains itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from worker.cli.main import main
from worker.settings import FIRST_OPTIONS, load, options
from worker.settings.template import settings_template


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_loads_with_the_values_of_the_flags(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--topic", "posts", "--model", "bundled", "--bootstrap-servers", "b1:9092,b2:9092"]
    assert main(["init", *words, "--batch-latency-goal-ms", "50", "--create-topics"]) == 0
    settings = load(config=folder / "streamlabel.toml", environ={}).settings
    assert settings.input.topic == "posts"
    assert settings.model.name == "bundled"
    assert settings.kafka.bootstrap_servers == "b1:9092,b2:9092"
    assert (settings.batch.latency_goal_ms, settings.create_topics) == (50, True)
    printed = capsys.readouterr().out
    assert printed.startswith("wrote streamlabel.toml: 12 settings set, ")
    assert "`streamlabel check`" in printed


def test_without_flags_the_file_holds_the_defaults(folder: Path) -> None:
    assert main(["init", "my settings.toml"]) == 0
    file = folder / "my settings.toml"
    assert load(config=file, environ={}).settings == load(environ={}).settings
    assert "streamlabel check --config 'my settings.toml'" in file.read_text()


def test_every_setting_is_in_the_file_once() -> None:
    text = settings_template({})
    keys = re.findall(r"^(?:# )?([a-z_.]+) = ", text, flags=re.MULTILINE)
    assert sorted(keys) == sorted(option.path for option in options())
    assert keys[: len(FIRST_OPTIONS)] == list(FIRST_OPTIONS)
    assert max(map(len, text.splitlines())) <= 100


def test_a_commented_line_has_the_default(folder: Path) -> None:
    """Uncommented, each line with a value loads and changes nothing."""
    lines = settings_template({}).splitlines()
    uncommented = [re.sub(r"^# ([a-z_.]+ = )(?!.*\.\.\.)", r"\1", line) for line in lines]
    file = folder / "s.toml"
    file.write_text("\n".join(uncommented))
    assert len(tomllib.loads(file.read_text())) == len({o.path.split(".")[0] for o in options() if o.field.default is not None})  # fmt: skip
    assert load(config=file, environ={}).settings == load(environ={}).settings


def test_a_changed_value_is_shown_with_its_default() -> None:
    assert 'Default: texts.in.\ninput.topic = "posts"' in settings_template(
        {"input.topic": "posts"}
    )


@pytest.mark.parametrize(
    ("flag", "value"), [("topics", "posts,news"), ("topic-pattern", "posts-.*")]
)
def test_a_file_with_several_topics_does_not_set_one(
    folder: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    """Both together are refused."""
    assert main(["init", f"--input-{flag}", value]) == 0
    assert "10 settings set" in capsys.readouterr().out
    file = folder / "streamlabel.toml"
    assert "\n# input.topic = " in file.read_text()
    topics = load(config=file, environ={}).settings.topics
    assert value in (",".join(topics.inputs), topics.pattern)


def test_an_existing_file_is_kept_unless_forced(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "streamlabel.toml"
    file.write_text("")
    assert main(["init"]) == 1
    message = "streamlabel: streamlabel.toml exists: overwrite it with --force\n"
    assert capsys.readouterr().err == message
    assert file.read_text() == ""
    assert main(["init", "--force"]) == 0
    assert "input.topic" in file.read_text()


def test_a_folder_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "nowhere/s.toml"]) == 1
    message = "streamlabel: can't write nowhere/s.toml: No such file or directory\n"
    assert capsys.readouterr().err == message


def test_a_secret_is_not_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "hunter2-hunter2-hunter2"
    assert main(["init", "--http-token", secret]) == 2
    message = capsys.readouterr().err
    assert "--http-token: a secret is not written to the file" in message
    assert "STREAMLABEL_HTTP_TOKEN_FILE" in message
    assert secret not in message
    assert not (folder / "streamlabel.toml").exists()


def test_a_wrong_value_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--bootstrap-servers", "broker"]) == 2
    assert "has no port" in capsys.readouterr().err
    assert not (folder / "streamlabel.toml").exists()


def test_a_file_with_several_models_does_not_set_one(folder: Path) -> None:
    assert main(["init", "--models", '{mood = {name = "bundled"}}']) == 0
    file = folder / "streamlabel.toml"
    assert "\n# model.name = " in file.read_text()
    assert list(load(config=file, environ={}).settings.models) == ["mood"]


def test_the_examples_of_models_and_routes_load(folder: Path) -> None:
    """The file shows their form, which a default of none does not."""
    text = settings_template({})
    examples = re.findall(r"^#   (.*)$", text, flags=re.MULTILINE)
    models = [line for line in examples if line.startswith("models.")]
    file = folder / "s.toml"
    file.write_text("\n".join(models))
    assert list(load(config=file, environ={}).settings.models) == ["mood", "toxicity"]
    routes = [line for line in examples if line not in models]
    file.write_text("\n".join([*routes, 'output.filtered_topic = "notes"']))
    drops = [route.drop for route in load(config=file, environ={}).settings.routes]
    assert drops == [False, True]
