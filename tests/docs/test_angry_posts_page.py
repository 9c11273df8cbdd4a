"""docs/angry-posts.md does what it says: settings, test without Kafka, run and audit."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.support.workers import WorkerProcess, audit, produce, wait_until
from worker.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/angry-posts.md").read_text(encoding="utf-8")
ROUTES = (ROOT / "docs/routes.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = PAGE) -> list[str]:
    """Return the fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def without_scores(text: str) -> list[str]:
    """The last digits of a score depend on the machine."""
    return [re.sub(r"0\.\d+", "0.", line) for line in text.splitlines()]


@pytest.fixture
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with the files of the page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streamlabel.toml").write_text(blocks("toml")[0])
    (tmp_path / "posts.jsonl").write_text(blocks("json")[0])
    (tmp_path / "posts.txt").write_text("What a lovely day\n")


@pytest.mark.usefixtures("_place")
def test_the_routes_are_tested_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the page about routes run too."""
    commands = [*blocks("bash")[0].splitlines(), *blocks("bash", ROUTES)[0].splitlines()]
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
        if command == commands[0]:
            printed = capsys.readouterr().out
            assert without_scores(printed) == without_scores(blocks("text")[0])


@pytest.mark.integration
@pytest.mark.usefixtures("_place")
def test_the_run_ends_in_the_audit_that_the_page_shows(
    broker: Broker, topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With names of topics that are this test's own."""
    path, prefix = tmp_path / "streamlabel.toml", topics.input.partition(".")[0]
    path.write_text(blocks("toml")[0].replace('"posts', f'"{prefix}.posts'))
    own = f"{prefix}.posts"
    place = replace(topics, input=own, output=f"{own}.labelled", dead=f"{own}.dead", partitions=6)
    at = ["--bootstrap-servers", broker.bootstrap_servers, "--group-id", topics.group]
    assert main(["topics", "create", *at]) == 0
    posts = [(b"key", line.encode()) for line in blocks("json")[0].splitlines()]
    produce(broker, own, posts)
    worker = WorkerProcess(broker, place, "bundled", tmp_path / "log", "--config", str(path))
    try:
        wait_until(lambda: worker.published == 4, 120, what="the posts are labelled")
    finally:
        assert worker.stop() == 0
    capsys.readouterr()
    assert main(["audit", *at]) == 0
    shown = [line.replace("posts.", f"{own}.") for line in blocks("text")[1].splitlines()]
    assert capsys.readouterr().out.splitlines() == shown
    assert audit(broker, place, "--config", str(path), "--delivery", "exactly_once")["holds"]
