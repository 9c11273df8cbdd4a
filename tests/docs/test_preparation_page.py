"""docs/preparation.md does what it says, with the bundled model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from worker.cli.main import main
from worker.core.decisions.prepare import preparation
from worker.settings import PrepareSettings, load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/preparation.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_command_of_the_page_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last digits depend on the machine."""
    monkeypatch.chdir(tmp_path)
    Path("streamlabel.toml").write_text(blocks("toml")[0])
    (command,) = blocks("bash")
    assert main(shlex.split(command)[1:]) == 0
    printed = json.loads(capsys.readouterr().out)
    shown = json.loads(blocks("json")[0])
    for document in (printed, shown):
        del document["score"]
        document["labels"] = [one["label"] for one in document["labels"]]
    assert printed == shown


def test_the_text_of_the_page_is_prepared_as_it_says() -> None:
    text = json.loads(blocks("json")[0])["text"]
    steps = preparation(PrepareSettings(preset="tweets", html=True, whitespace=True))
    assert steps is not None
    assert f"`{steps.apply(text)}`" in PAGE
    assert steps.recipe == json.loads(blocks("json")[0])["prepared"]


def test_the_steps_are_listed_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+) = ", PAGE, re.MULTILINE)
    names = PrepareSettings.model_fields.keys()
    assert sorted(rows) == sorted(names - {"special_tokens"})
    html = preparation(PrepareSettings(html=True, unicode="NFC", preset="tweets", whitespace=True))
    assert html is not None
    assert html.recipe == "html+nfc+tweets+whitespace"
    assert rows == [
        "html",
        "unicode",
        "preset",
        "urls",
        "mentions",
        "emoji",
        "whitespace",
        "function",
    ]


def test_the_function_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    """The package that the page names is not installed, so only its settings are read."""
    (tmp_path / "streamlabel.toml").write_text(blocks("toml")[1])
    settings = load(config=tmp_path / "streamlabel.toml", environ={}).settings
    module, _, name = (settings.prepare.function or "").partition(":")
    assert f"# {module.replace('.', '/')}.py" in PAGE
    scope: dict[str, object] = {}
    exec(blocks("python")[0], scope)
    function = scope[name]
    assert callable(function)
    assert function("Out of office until May") is None
    assert function("Thanks!\n-- \nAnn") == "Thanks!"
