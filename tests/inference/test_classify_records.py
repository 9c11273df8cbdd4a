"""`streamlabel classify` with records, and with several models: as a worker labels them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import Architecture, make_checkpoint
from tests.support.records import item
from worker.cli.main import main
from worker.cli.several_answers import print_json, print_rows
from worker.core.records import Filtered
from worker.inference.classifier import TransformersClassifier

pytestmark = pytest.mark.usefixtures("offline")

RECORDS = b'{"text": "a fine day", "lang": "en"}\n\n{"text": "ein Tag", "lang": "de"}\n{"txt": 5}\n'


@pytest.fixture
def model(checkpoint: Callable[[Architecture], Path]) -> str:
    return str(checkpoint("distilbert"))


@pytest.fixture
def config(tmp_path: Path, model: str) -> str:
    """Settings of two models, of which the second labels English texts only."""
    other = make_checkpoint(tmp_path / "other", labels=("calm", "angry", "sad"))
    file = tmp_path / "streamlabel.toml"
    file.write_text(
        f'[models.mood]\nname = "{model}"\n'
        f'[models.anger]\nname = "{other}"\nwhen = {{ path = "lang", in = ["en"] }}\n'
    )
    return str(file)


@pytest.fixture
def records(tmp_path: Path) -> str:
    file = tmp_path / "posts.jsonl"
    file.write_bytes(RECORDS)
    return str(file)


def documents(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_each_model_labels_the_records_that_it_applies_to(
    config: str, records: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", "--config", config, "--records", "--json", records]) == 1
    printed = capsys.readouterr()
    english, german, broken = documents(printed.out)
    assert english["text"] == "a fine day"
    assert set(english["classifications"]) == {"mood", "anger"}
    assert english["classifications"]["anger"]["label"] in ("calm", "angry", "sad")
    assert english["absences"] == {}
    assert german["classifications"]["anger"] is None
    assert german["absences"] == {"anger": "not_applicable"}
    assert broken["error"].startswith("path_missing: ")
    assert "no label for '{\"txt\": 5}': path_missing" in printed.err


def test_a_table_has_a_line_for_each_model(
    config: str,
    records: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["classify", "--config", config, "--records", records]) == 1
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "label", "score", "tokens", "text"]
    assert [line.split()[0] for line in lines] == [
        "mood",
        "anger",
        "mood",
        "anger",
        "(path_missing)",
    ]
    assert lines[0].rstrip().endswith("a fine day")
    assert "(not_applicable)" in lines[3]


def test_texts_have_no_field_for_a_condition(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", "--config", config, "--json", "a fine day"]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert document["absences"] == {"anger": "not_applicable"}


def test_records_of_one_model_have_the_members_of_texts(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may come from standard input, and the table has a line for each."""
    assert main(["classify", "--model", model, "--json", "a fine day"]) == 0
    expected = documents(capsys.readouterr().out)
    line = b'{"body": "a fine day"}'
    flags = ["classify", "--model", model, "--records", "--input-text-path", "body", "-"]

    def output(*more: str) -> str:
        stdin = type("Stdin", (), {"buffer": io.BytesIO(line)})
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main([*flags, *more]) == 0
        return capsys.readouterr().out

    assert documents(output("--json")) == expected
    assert "a fine day" in output()


def test_a_text_that_is_too_long_for_a_model_is_a_dead_letter(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'[input]\noverflow = "dead_letter"\n[models.mood]\nname = "{model}"\n')
    assert main(["classify", "--config", str(file), "--json", "w " * 500]) == 1
    assert "too_many_tokens" in capsys.readouterr().err


def test_a_model_that_is_not_required_may_fail(
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(TransformersClassifier, "begin", fail)
    file = tmp_path / "settings.toml"
    file.write_text(f'[models.mood]\nname = "{model}"\nrequired = false\n')
    assert main(["classify", "--config", str(file), "--json", "hi"]) == 0
    (document,) = documents(capsys.readouterr().out)
    assert document["absences"] == {"mood": "model_failed"}


def test_a_file_that_is_missing_is_named(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--model", model, "--records", "/no/such/file"]) == 1
    assert "can't read /no/such/file" in capsys.readouterr().err


def test_records_and_csv_exclude_each_other(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["classify", "--model", model, "--records", "--csv", "x"])
    assert "use one of them" in capsys.readouterr().err


def test_a_filtered_record_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Filtered(item(text="buy now"), "prepare.function")
    print_json([outcome])
    assert documents(capsys.readouterr().out) == [
        {"text": "buy now", "filtered": "prepare.function"}
    ]
    print_rows([outcome], header=True)
    assert "(prepare.function)" in capsys.readouterr().out
