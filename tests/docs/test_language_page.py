"""docs/language-first.md does what it says, with tiny models in the place of the hub's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.classifications import Classifications, ModelClassification
from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, audit, produce, read, wait_until
from worker.settings import load, plans

PAGE = (Path(__file__).parents[2] / "docs/language-first.md").read_text(encoding="utf-8")
MODELS = {
    "papluca/xlm-roberta-base-language-detection": ("de", "en", "fr"),
    "cardiffnlp/twitter-roberta-base-sentiment-latest": ("negative", "neutral", "positive"),
    "oliverguhr/german-sentiment-bert": ("positive", "negative", "neutral"),
}


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Unnamed(WorkerProcess):
    """A worker whose settings file says how each model runs."""

    engine = ()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """The first settings of the page, with models that need no hub."""
    text = blocks("toml")[0]
    for seed, (name, labels) in enumerate(MODELS.items()):
        assert f'name = "{name}"' in text
        folder = make_checkpoint(tmp_path / name.partition("/")[2], labels=labels, seed=seed)
        text = text.replace(f'name = "{name}"', f'name = "{folder}"\nengine = "packed"')
    file = tmp_path / "streamlabel.toml"
    file.write_text(text)
    return file


@pytest.mark.integration
def test_each_language_has_its_model(
    broker: Broker, topics: Topics, tmp_path: Path, settings: Path
) -> None:
    posts = blocks("json")[0].splitlines()
    produce(broker, topics.input, [(None, post.encode()) for post in posts * 10])
    worker = Unnamed(broker, topics, None, tmp_path / "log", "--config", str(settings))
    try:
        wait_until(lambda: worker.published == 20, 120, "the posts are labelled")
    finally:
        worker.stop()
    assert audit(broker, topics)["holds"]
    for record in read(broker, topics.output, topics.partitions):
        result = Classifications.model_validate_json(record.value)
        assert list(result.classifications) == ["language", "english", "german"]
        said = result.classifications["language"]
        assert said is not None
        wanted = {"en": "english", "de": "german"}.get(said.label)
        for name in ("english", "german"):
            one = result.classifications[name]
            assert (one is not None) == (name == wanted)
            assert result.absences.get(name) == (None if one else "not_applicable")


def test_the_settings_of_the_page_are_valid(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        assert all(plan.name for plan in plans(load(config=file, environ={}).settings))


def test_the_result_of_the_page_has_members_of_the_schema() -> None:
    shown: dict[str, Any] = json.loads(blocks("json")[1])
    assert shown.keys() <= Classifications.model_fields.keys()
    for one in shown["classifications"].values():
        assert one is None or one.keys() <= ModelClassification.model_fields.keys()
    absent = [name for name, one in shown["classifications"].items() if one is None]
    assert list(shown["absences"]) == absent
