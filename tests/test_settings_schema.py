"""The JSON Schema of the settings file: up to date, and in agreement with `load`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from worker.errors import SettingsError
from worker.settings import inline, load, options, schema

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*/streamlabel.toml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    document = json.loads(schema.FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def test_the_file_is_up_to_date(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert schema.main(["--check"]) == 0
    stale = tmp_path / "settings.schema.json"
    assert schema.main(["--check"], stale) == 1
    assert "stale: run python -m worker.settings.schema" in capsys.readouterr().err
    assert schema.main([], stale) == 0
    assert stale.read_text() == schema.FILE.read_text()


def test_every_option_is_described(validator: Draft202012Validator) -> None:
    tables = validator.schema["$defs"]
    for option in options():
        node = validator.schema["properties"]
        if option.section:
            node = tables[node[option.section]["$ref"].rpartition("/")[2]]["properties"]
        entry = node[option.path.rpartition(".")[2]]
        assert entry["description"] == option.field.description
        assert "flag" not in entry


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_are_valid(path: Path, validator: Draft202012Validator) -> None:
    validator.validate(tomllib.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "content",
    [
        '[kafka]\nbootstrap_servers = ["a:1", "b:2"]\ngroup_id = "mine"\n',
        'delivery = "exactly_once"\ncommit_interval = 0.5\n',
        "[model]\nthreads = 2\n[http]\nport = 0\n",
        '[http]\nallowed_hosts = ["Worker", "10.0.0.7"]\n',
        (
            '[[routes]]\nlabel = "x"\npath = "n"\nin = 3\ntopic = "t"\n'
            '[[routes]]\nlabel = ["x", "y"]\npath = "n"\nin = [3, "a", true]\ntopic = "u"\n'
        ),
    ],
)
def test_a_file_that_load_accepts_is_valid(
    content: str, tmp_path: Path, validator: Draft202012Validator
) -> None:
    config = tmp_path / "s.toml"
    config.write_text(content)
    load(config=config, environ={})
    validator.validate(tomllib.loads(content))


@pytest.mark.parametrize(
    "document",
    [
        {"kafka": {"group": "mine"}},
        {"kafkaa": {"group_id": "mine"}},
        {"http": {"port": 70_000}},
        {"delivery": "at_most_once"},
        {"input": {"topic": "no spaces"}},
        {"model": {"threads": "many"}},
        {"models": {"A b": {"name": "bundled"}}},
        {"routes": [{"label": "x"}]},
        {"routes": [{"label": [], "topic": "x"}]},
        {"decision": {"threshold": {}}},
    ],
)
def test_a_document_that_load_refuses_is_invalid(
    document: dict[str, Any], tmp_path: Path, validator: Draft202012Validator
) -> None:
    config = tmp_path / "s.toml"
    config.write_text("\n".join(f"{name} = {inline(one)}" for name, one in document.items()))
    with pytest.raises(SettingsError):
        load(config=config, environ={})
    assert not validator.is_valid(document)
