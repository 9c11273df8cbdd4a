"""docs/emotions.md does what it says, with a tiny model in the place of the hub's."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, produce, read, wait_until
from worker.cli.main import main
from worker.settings import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/emotions.md").read_text(encoding="utf-8")
# Some of the model's 28 labels, in its order.
LABELS = ("anger", "curiosity", "gratitude", "remorse", "surprise")
POST = {"id": 2, "text": "I am sorry, and I am still angry about it."}


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def command(name: str) -> list[str]:
    """Return the words of the page's command of this name, without `streamlabel`."""
    lines = (line for block in blocks("bash") for line in block.splitlines())
    return shlex.split(next(line for line in lines if line.startswith(f"streamlabel {name}")))[1:]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_checkpoint(
        tmp_path / "model", labels=LABELS, problem_type="multi_label_classification"
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the page's files: the settings, and its labelled posts often enough."""
    monkeypatch.chdir(tmp_path)
    Path("streamlabel.toml").write_text(blocks("toml")[0])
    header, *rows = csv.reader(io.StringIO(blocks("csv")[0]))
    with Path("labelled.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(header)
        writer.writerows((f"{text} {n}", labels) for n in range(15) for text, labels in rows)
    return tmp_path


def decided(place: Path) -> None:
    """Put the table that was found in the place of the one that the page begins with."""
    before, table, _ = Path("streamlabel.toml").read_text().partition("[decision]")
    assert table
    Path("streamlabel.toml").write_text(before + Path("decision.toml").read_text())


@pytest.mark.integration
@pytest.mark.usefixtures("place")
def test_the_labels_that_hold_are_in_each_result(
    broker: Broker,
    topics: Topics,
    tmp_path: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = ("--model", str(model))
    assert main([*command("classify"), *chosen]) == 0
    assert main([*command("calibrate"), *chosen]) == 0
    assert "mean F1 of the labels" in capsys.readouterr().out
    decided(tmp_path)
    found = load(config=Path("streamlabel.toml"), environ={}).settings.decision
    assert isinstance(found.threshold, dict)
    assert found.threshold.keys() == set(LABELS)
    produce(broker, topics.input, [(b"key", json.dumps(POST).encode())])
    worker = WorkerProcess(
        broker, topics, model, tmp_path / "log", "--config", str(tmp_path / "streamlabel.toml")
    )
    try:
        wait_until(lambda: worker.published == 1, what="the post is labelled")
    finally:
        worker.stop()
    (record,) = read(broker, topics.output, topics.partitions)
    result: dict[str, Any] = json.loads(record.value)
    assert result["temperature"] == found.temperature
    scores = {entry["label"]: entry["score"] for entry in result["labels"]}
    assert result["decided"] == [name for name in LABELS if scores[name] >= found.threshold[name]]


def test_the_settings_and_the_result_of_the_page_are_valid(tmp_path: Path) -> None:
    (shown,) = map(json.loads, blocks("json"))
    assert {"message_id", "label", "score", "labels", "temperature", "decided"} == shown.keys()
    for settings in blocks("toml"):
        (tmp_path / "streamlabel.toml").write_text(settings)
        load(config=tmp_path / "streamlabel.toml", environ={})


def test_the_messages_of_the_page_are_those_of_the_command() -> None:
    """Each is a part of the source, but for its numbers."""
    rows = re.findall(r"^\| `(.+?)`", PAGE.partition("## What can go wrong")[2], re.MULTILINE)
    assert len(rows) == 6
    source = "".join(
        (ROOT / f"worker/cli/{name}.py").read_text(encoding="utf-8")
        for name in ("calibrate", "calibrate_view", "labelled")
    )
    told = re.sub(r'"\n\s+f?"|\{[^}]*\}', "", source)
    for row in rows:
        assert re.sub(r"\b\d+ (rows|usable texts)|\d+", "", row).strip() in told, row
