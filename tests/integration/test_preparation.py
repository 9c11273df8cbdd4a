"""A worker with a preparation: each record has one outcome, with the text as prepared.

`ast.literal_eval` stands for an own function. For a text that is a literal of Python it returns a
text, None or bytes, and it raises for all else.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.support.workers import WorkerProcess, audit, lag, produce, read, wait_until
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.route_headers import FILTERED_HEADER, parse_filtered

pytestmark = pytest.mark.integration

RECORDS = 204
SETTINGS = """[model]
name = "bundled"
[prepare]
function = "ast:literal_eval"
"""
LITERALS = ("'it was awful'", "'it was lovely'", "None", "b'bytes'", "no literal", "'  '")


def text_of(number: int) -> str:
    return LITERALS[number % len(LITERALS)]


def send(broker: Broker, topics: Topics, start: int = 0) -> None:
    numbers = range(start, start + RECORDS)
    documents = ({"id": n, "text": text_of(n)} for n in numbers)
    keyed = [(f"author-{d['id'] % 7}".encode(), json.dumps(d).encode()) for d in documents]
    produce(broker, topics.input, keyed)


@pytest.mark.parametrize(
    ("delivery", "processes"), [("at_least_once", 2), ("exactly_once", 1)], ids=["pool", "one"]
)
def test_each_record_has_the_outcome_that_the_function_gives_it(
    broker: Broker, topics: Topics, tmp_path: Path, delivery: str, processes: int
) -> None:
    notes, file = f"{topics.output}.notes", tmp_path / "streamlabel.toml"
    file.write_text(SETTINGS)
    worker = WorkerProcess(
        broker,
        topics,
        None,
        tmp_path / "log",
        *("--config", str(file), "--delivery", delivery, "--processes", str(processes)),
        *("--create-topics", "--output-filtered-topic", notes, "--max-dead-letter-ratio", "1"),
    )
    try:
        send(broker, topics)
        worker.wait_ready()
        wait_until(lambda: lag(broker, topics) == 0, what="all are done")
        seconds = "streamlabel_prepare_seconds_total"
        wait_until(lambda: worker.metric(seconds) > 0, what="its time is counted")
        file.write_text(SETTINGS + "whitespace = true\n")
        worker.process.send_signal(signal.SIGHUP)
        changed = 'streamlabel_model_changes_total{outcome="changed"}'
        wait_until(lambda: worker.metric(changed) == processes, what="the preparation changes")
        send(broker, topics, RECORDS)
        wait_until(lambda: lag(broker, topics) == 0, what="all are done")
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.kill()

    numbers = Counter(text_of(n) for n in range(2 * RECORDS))
    results = [json.loads(one.value) for one in read(broker, topics.output, topics.partitions)]
    labels = Counter(result["label"] for result in results)
    assert labels == {"NEGATIVE": numbers["'it was awful'"], "POSITIVE": numbers["'it was lovely'"]}
    recipes = Counter(result["prepared"].partition("@")[0] for result in results)
    assert recipes == {
        "function=ast:literal_eval": len(results) // 2,
        "whitespace+function=ast:literal_eval": len(results) // 2,
    }
    assert len({result["id"] for result in results}) == len(results)

    headers = [dict(one.headers) for one in read(broker, notes, topics.partitions)]
    assert len(headers) == numbers["None"]
    assert {parse_filtered(h[FILTERED_HEADER]).reason for h in headers} == {"prepare.function"}

    dead = read(broker, topics.dead, topics.partitions)
    contexts = [json.loads(dict(one.headers)[DEAD_LETTER_HEADER]) for one in dead]
    reasons = Counter(context["reason"] for context in contexts)
    assert reasons == {
        "prepare_failed": numbers["b'bytes'"] + numbers["no literal"],
        "empty_text": numbers["'  '"],
    }
    messages = " ".join({context["message"] for context in contexts})
    assert "ast:literal_eval returned bytes" in messages
    assert "raised SyntaxError in ast.py, line" in messages
    verdict = audit(broker, topics, "--output-filtered-topic", notes)
    assert verdict["holds"], verdict
