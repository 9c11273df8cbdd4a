"""docs/decisions.md does what it says, with the bundled model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from worker.cli.main import main
from worker.core.decisions.rules import bind, decision
from worker.settings import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
LABELS = [
    ("NEGATIVE", "POSITIVE"),
    ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"),
    ("anger", "joy", "sadness"),
]


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_settings_of_the_page_fit_their_models(tmp_path: Path) -> None:
    """Each block is valid as it is."""
    for text, labels in zip(blocks("toml"), LABELS, strict=True):
        (tmp_path / "streamlabel.toml").write_text(text)
        found = decision(load(config=tmp_path / "streamlabel.toml", environ={}).settings.decision)
        assert found is not None
        assert bind(found, labels, "softmax").labels


def test_the_command_of_the_page_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last digits depend on the machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "72")
    Path("streamlabel.toml").write_text(blocks("toml")[0])
    (command,) = blocks("bash")
    assert main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    for line, shown in zip(printed, blocks("text")[0].splitlines(), strict=True):
        assert re.sub(r"0\.\d+", "", line).split() == re.sub(r"0\.\d+", "", shown).split()


def test_the_messages_of_the_page_are_those_of_the_program() -> None:
    """Each is a part of the source."""
    rows = re.findall(r"^\| `(.+?)`", PAGE.partition("## What can go wrong")[2], re.MULTILINE)
    assert len(rows) == 8
    files = ("core/decisions/members", "core/decisions/rules", "settings/decision")
    source = "".join((ROOT / f"worker/{name}.py").read_text(encoding="utf-8") for name in files)
    told = re.sub(r'"\s+f?"', "", source)
    for row in rows:
        assert row in told, row
