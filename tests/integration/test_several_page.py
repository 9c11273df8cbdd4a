"""A whole worker with two models and routes: its page, its answers and its metrics agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.sites import post
from tests.support.workers import WorkerProcess, produce, wait_until
from worker.http.client import Snapshot

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NUMBER = 40  # records: half of them in English, one in ten is spam

SETTINGS = """
create_topics = true
[output]
filtered_topic = "{notes}"
[models.mood]
name = "{mood}"
engine = "packed"
[models.tone]
name = "{tone}"
engine = "packed"
when = {{ path = "lang", in = ["en"] }}
[[routes]]
name = "english"
path = "lang"
in = ["en"]
topic = "{copies}"
also = true
[[routes]]
name = "spam"
path = "kind"
in = ["spam"]
drop = true
[http]
show_texts = true
"""


class OwnEngines(WorkerProcess):
    """A worker whose settings file has the engine of each model."""

    engine = ()


@pytest.fixture
def worker(broker: Broker, topics: Topics, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker that has labelled all records."""
    names = {
        "mood": make_checkpoint(tmp_path / "mood"),
        "tone": make_checkpoint(tmp_path / "tone", labels=("calm", "angry", "sad")),
        "notes": f"{topics.output}.notes",
        "copies": f"{topics.output}.english",
    }
    file = tmp_path / "streamlabel.toml"
    file.write_text(SETTINGS.format(**names))
    values: list[dict[str, Any]] = [
        {"text": f"post {n}", "lang": "en" if n % 2 else "de"}
        | ({"kind": "spam"} if n % 10 == 0 else {})
        for n in range(NUMBER)
    ]
    produce(broker, topics.input, [(None, json.dumps(value).encode()) for value in values])
    worker = OwnEngines(broker, topics, None, tmp_path / "log", "--config", str(file))
    try:
        worker.wait_ready()
        done = lambda: worker.published + worker.metric("streamlabel_filtered_total")  # noqa: E731
        wait_until(lambda: done() == NUMBER, 60, "all are labelled")
        yield worker
    finally:
        worker.kill()


def counted(snapshot: Snapshot) -> tuple[int, int, int]:
    """Return the results, the notes and the copies that a snapshot counts."""
    routes = snapshot["routes"] or {"main": {}, "filtered": {}, "copies": {}}
    results, notes, copies = (sum(routes[kind].values()) for kind in ("main", "filtered", "copies"))
    return results, notes, copies


def test_the_page_shows_each_model_and_the_routes(worker: WorkerProcess) -> None:
    spam, results = NUMBER // 10, NUMBER - NUMBER // 10
    shown = worker.page(lambda one: counted(one) == (results, spam, NUMBER // 2))
    mood, tone = shown["each_model"]
    assert (mood["name"], tone["name"]) == ("mood", "tone")
    assert (mood["labelled"], mood["absent"]) == (results, {})
    assert tone["labelled"] == NUMBER // 2
    assert tone["absent"] == {"not_applicable": results - NUMBER // 2}
    assert sum(mood["labels"].values()) == results
    assert mood["facts"]["engine"] == "packed"
    assert mood["time"] + tone["time"] == pytest.approx(1)
    assert shown["routes"]["main"] == {"(none)": results}
    assert shown["routes"]["filtered"] == {"route spam": spam}
    assert shown["routes"]["copies"] == {"english": NUMBER // 2}
    parts = [post["parts"] for post in shown["posts"] if "parts" in post]
    assert {part["name"] for part in parts[0]} == {"mood", "tone"}


def test_a_text_is_answered_by_the_models_that_apply_to_its_record(worker: WorkerProcess) -> None:
    status, body = post(worker.port, "a fine day")
    assert status == 200
    answer = json.loads(body)
    assert answer["absences"] == {"tone": "not_applicable"}
    assert answer["classifications"]["mood"]["label"] in ("NEGATIVE", "POSITIVE")
    status, body = post(worker.port, "a fine day", record={"lang": "en"})
    answer = json.loads(body)
    assert answer["absences"] == {}
    assert answer["classifications"]["tone"]["label"] in ("calm", "angry", "sad")
