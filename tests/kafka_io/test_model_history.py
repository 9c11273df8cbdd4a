"""The models that results name: one of each result, or several, each with its own history."""

from __future__ import annotations

import json
from typing import Any

from worker.core.coordinates import SOURCE_HEADER, format_source
from worker.core.model_history import ModelHistory
from worker.core.records import Headers
from worker.kafka_io.model_history import ReadHistory, _note
from worker.kafka_io.reader import AuditRecord
from worker.settings import WorkerTopics

NOON = 1_795_780_800_000


def noted(*results: dict[str, Any]) -> tuple[ReadHistory, ModelHistory]:
    read, history = ReadHistory(["out"], "in"), ModelHistory()
    for offset, result in enumerate(results):
        headers = [(SOURCE_HEADER, format_source("in", 0, offset))]
        value = json.dumps(result | {"processed_at": NOON + offset}).encode()
        record = AuditRecord(0, offset, headers, NOON, value, None)
        _note(read, history, record, "out", parse, WorkerTopics(("in",), "out", "dead"))
    return read, history


def parse(value: bytes, _: Headers, __: str) -> Any:
    return json.loads(value)


def model(name: str) -> dict[str, Any]:
    return {"model": {"name": name, "revision": "main", "weights_sha256": "aa"}}


def test_one_model_has_the_runs_of_its_inputs() -> None:
    read, history = noted(model("a"), model("b"), {"label": "x"})
    assert [(key.topic, len(runs)) for key, runs in history.runs.items()] == [("in", 2)]
    assert read.unreadable == {"it names no model": 1}


def test_each_of_several_models_has_runs_of_its_own() -> None:
    """One that a record does not concern is null there, and that is no change."""
    _, history = noted(
        {"classifications": {"mood": model("a"), "tongue": model("c")}},
        {"classifications": {"mood": model("a"), "tongue": None}},
        {"classifications": {"mood": model("b"), "tongue": model("c")}},
    )
    runs = {key.topic: [run.model.name for run in found] for key, found in history.runs.items()}
    assert runs == {"in mood": ["a", "b"], "in tongue": ["c"]}
