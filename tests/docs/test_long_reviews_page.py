"""docs/long-reviews.md does what it says, with the bundled model."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.support.workers import WorkerProcess, produce, read, wait_until
from worker.cli.main import main
from worker.settings import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/long-reviews.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the page's files."""
    monkeypatch.chdir(tmp_path)
    Path("streamlabel.toml").write_text(blocks("toml")[0])
    Path("reviews.csv").write_text(blocks("csv")[0])
    return tmp_path


def without_digits(table: str) -> list[list[str]]:
    """Return the cells; the last digits of a score depend on the machine."""
    return [re.sub(r"(0\.\d)\d+", r"\1", line).split() for line in table.splitlines()]


def test_the_commands_of_the_page_print_what_it_shows(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = [block for block in blocks("bash") if "classify" in block]
    for command, shown in zip(commands, blocks("text"), strict=True):
        assert main(shlex.split(command)[1:]) == 0
        assert without_digits(capsys.readouterr().out) == without_digits(shown)


@pytest.mark.integration
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_the_result_of_the_page_is_that_of_a_worker(
    place: Path, broker: Broker, topics: Topics, delivery: str
) -> None:
    (shown,) = (json.loads(block) for block in blocks("json"))
    (post, _) = csv.DictReader(io.StringIO(blocks("csv")[0]))
    sent = json.dumps({"id": 1, "text": post["text"]}).encode()
    produce(broker, topics.input, [(b"key", sent)])
    settings = ("--config", str(place / "streamlabel.toml"), f"--delivery={delivery}")
    worker = WorkerProcess(broker, topics, None, place / "log", *settings)
    try:
        wait_until(lambda: worker.published == 1, what="the review is labelled")
    finally:
        worker.stop()
    (record,) = read(broker, topics.output, topics.partitions)
    result = json.loads(record.value)
    assert {name: result[name] for name in shown} == shown


def test_the_messages_of_the_page_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| `(.+?)` \|", PAGE.partition("## What can go wrong")[2], re.MULTILINE)
    names = ("settings/window_conflicts", "inference/tokeniser")
    source = "".join((ROOT / f"worker/{name}.py").read_text(encoding="utf-8") for name in names)
    assert len(rows) == 3
    for row in rows:
        assert row in source, row


def test_the_settings_of_the_page_are_valid(place: Path) -> None:
    assert load(config=place / "streamlabel.toml", environ={}).settings.input.max_windows == 8
