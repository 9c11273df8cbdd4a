"""`streamlabel routes`: where records would go, and why, with the bundled model."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.records import CARD
from worker.cli.main import main
from worker.cli.routes_view import Way, Ways, as_document, as_lines
from worker.core.absences import NOT_APPLICABLE, Absence, Part
from worker.core.records import (
    Classified,
    Filtered,
    Prediction,
    RawRecord,
    RecordRef,
    WorkItem,
)
from worker.settings import load

SETTINGS = """
[model]
name = "bundled"
engine = "packed"
[output]
filtered_topic = "texts.filtered"
[[routes]]
name = "german"
path = "lang"
in = ["de"]
drop = true
[[routes]]
name = "alerts"
label = "NEGATIVE"
topic = "{topic}.alerts"
also = true
[[routes]]
label = "NEGATIVE"
topic = "texts.{label}"
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "streamlabel.toml"
    path.write_text(SETTINGS)
    return str(path)


def routes(config: str, *words: str) -> int:
    return main(["routes", words[0], "--config", config, *words[1:]])


def test_the_list_has_every_route_in_order(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert routes(config, "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "german: lang is de -> no result, a note",
        "alerts: label NEGATIVE -> {topic}.alerts (a copy)",
        "3: label NEGATIVE -> texts.{label}",
        "others -> texts.labelled",
    ]
    assert routes(config, "list", "--json") == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["route"], last["topic"], last["drop"]) == ("3", "texts.{label}", False)


def test_a_worker_without_routes_has_one_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "list", "--output-topic", "labelled"]) == 0
    assert capsys.readouterr().out == "every result -> labelled\n"


def test_texts_are_shown_with_their_topic_and_the_reasons(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blank lines are no texts; the counts are at the end."""
    (tmp_path / "texts.txt").write_text("I hate this so much\n\nI love this day\n")
    assert routes(config, "test", "--texts", str(tmp_path / "texts.txt")) == 0
    printed = capsys.readouterr().out
    assert "texts.NEGATIVE (route 3)\n    NEGATIVE 0.9" in printed
    assert "    copy to texts.in.alerts by route alerts\n" in printed
    assert "    route german does not match: the record has no field lang\n" in printed
    assert "    route 3 does not match: label is POSITIVE, not NEGATIVE\n" in printed
    assert printed.endswith(
        "2 records:\n       1 to texts.NEGATIVE\n       1 to texts.labelled\n"
        "       1 copied to texts.in.alerts\n"
    )


def test_records_are_decoded_as_a_worker_does(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From standard input too; a record that a worker can't label is a failure."""
    values: list[Any] = [{"text": "I hate this", "lang": "de"}, {"text": 3}]
    source = "".join(json.dumps(value) + "\n" for value in values)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.encode())))
    assert routes(config, "test", "--records", "-", "--json") == 1
    german, dead = map(json.loads, capsys.readouterr().out.splitlines())
    assert (german["topic"], german["route"], german["filtered"]) == (
        "texts.filtered",
        "german",
        True,
    )
    assert [(one["model"], one["label"]) for one in german["labels"]] == [(None, "NEGATIVE")]
    assert german["tried"][0]["conditions"] == [{"holds": True, "words": "lang is 'de'"}]
    assert (dead["topic"], dead["line"], dead["filtered"]) == ("texts.dead", 2, False)
    assert dead["reason"].startswith("not_a_string: ")


def test_a_dead_letter_is_shown_with_its_reason() -> None:
    way = Way(2, "{}", "texts.dead", why="missing_field: no text", failed=True)
    assert list(as_lines(way)) == [
        "texts.dead (dead letter)",
        "    {}",
        "    missing_field: no text",
    ]


def test_a_skipped_record_goes_to_the_notes() -> None:
    """Or nowhere, if the settings have no topic of notes."""
    item = WorkItem(RawRecord(RecordRef("in", 0, 7, 0), 0, None, b"", (), 0.0), "hello")
    settings = load({"output.filtered_topic": "notes"}, environ={}).settings
    way = Ways(settings).of(Filtered(item, "prepare.function"))
    assert list(as_lines(way)) == [
        "notes (filtered)",
        "    hello",
        "    prepare.function",
    ]
    assert as_document(way)["filtered"] is True
    nowhere = Ways(load({}, environ={}).settings).of(Filtered(item, "prepare.function"))
    assert next(as_lines(nowhere)) == "nowhere (filtered)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test"], "`streamlabel routes test` needs --texts FILE or --records FILE"),
        (["list", "--texts", "x"], "belong to `streamlabel routes test`"),
    ],
)
def test_wrong_arguments_are_told(
    config: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert routes(config, *words) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_can_not_be_read_is_named(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert routes(config, "test", "--texts", "/nowhere/texts.txt") == 1
    assert "can't read /nowhere/texts.txt: No such file" in capsys.readouterr().err


def test_a_route_that_does_not_fit_the_model_is_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As at the start of a worker."""
    path = tmp_path / "other.toml"
    path.write_text(SETTINGS.replace('"NEGATIVE"', '"negative"'))
    (tmp_path / "texts.txt").write_text("hello\n")
    assert routes(str(path), "test", "--texts", str(tmp_path / "texts.txt")) == 2
    assert "which is no label of bundled" in capsys.readouterr().err


def test_each_of_several_models_has_its_label() -> None:
    """One that a record does not concern has none."""
    item = WorkItem(RawRecord(RecordRef("in", 0, 7, 0), 0, None, b"", (), 0.0), "hello")
    part = Part(Prediction((0.25, 0.75), 3, truncated=False), CARD)
    parts = {"first": Absence(NOT_APPLICABLE), "second": part}
    outcome = Classified(item, Prediction((), 0, truncated=False), CARD, parts)
    way = Ways(load({}, environ={}).settings).of(outcome)
    assert list(as_lines(way)) == [
        "texts.labelled",
        "    first: no label, second: POSITIVE 0.7500  hello",
    ]
    assert as_document(way)["labels"] == [{"model": "second", "label": "POSITIVE", "score": 0.75}]
