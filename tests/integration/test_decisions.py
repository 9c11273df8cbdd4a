"""Decisions in a whole worker: its results, its metrics, and a change of the decision."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.integration.test_schemas import Writer, decoded, labelled, options, send, verdict
from tests.support.models import make_checkpoint
from tests.support.records import CARD
from tests.support.registry import ApicurioRegistry
from tests.support.workers import (
    ObedientModel,
    WorkerProcess,
    audit,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.core.decisions.rules import bind, decision
from worker.settings import DecisionSettings

pytestmark = pytest.mark.integration

FIRST = """
[decision]
temperature = 2.0
digits = 3
[decision.threshold]
anger = 0.2
"""


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_decision_changes_while_the_worker_runs_unless_it_does_not_fit(
    broker: Broker, topics: Topics, tmp_path: Path, delivery: str
) -> None:
    labels = ("joy", "anger", "fear")
    model = make_checkpoint(
        tmp_path / "model", labels=labels, problem_type="multi_label_classification"
    )
    config = tmp_path / "streamlabel.toml"
    config.write_text(FIRST)
    more = ("--config", str(config), "--delivery", delivery)
    worker = WorkerProcess(broker, topics, model, tmp_path / "log", *more)

    def change(text: str, outcome: str) -> None:
        name = f'streamlabel_model_changes_total{{outcome="{outcome}"}}'
        before = worker.metric(name)
        config.write_text(text)
        worker.process.send_signal(signal.SIGHUP)
        wait_until(lambda: worker.metric(name) > before, 60, f"the change is {outcome}")

    try:
        worker.wait_ready()
        produce(broker, topics.input, texts(10))
        wait_until(lambda: worker.published == 10, what="ten posts are labelled")
        change(FIRST.replace("anger", "angst"), "refused")
        change(FIRST.replace("0.2", "1.0"), "changed")
        produce(broker, topics.input, texts(10))
        wait_until(lambda: worker.published == 20, what="all posts are labelled")
        decided = worker.metric("streamlabel_decided_labels_total")
        assert worker.stop() == 0
    finally:
        worker.kill()
    results = [json.loads(one.value) for one in read(broker, topics.output, topics.partitions)]
    for result in results:
        scores = {one["label"]: one["score"] for one in result["labels"]}
        assert (result["temperature"], list(scores)) == (2.0, list(labels))
        assert all(score == round(score, 3) for score in scores.values())
    assert sum(len(result["decided"]) for result in results) == decided
    assert any("anger" in result["decided"] for result in results)
    assert len({result["id"] for result in results}) == 20
    report = audit(broker, topics)
    assert report["holds"], report


def test_decided_results_in_avro_follow_plain_ones_in_one_topic(
    broker: Broker, topics: Topics, registry: ApicurioRegistry
) -> None:
    """A restart with a decision registers the later version of the schema."""
    writer = Writer(registry, topics.input)
    avro = options(registry, output__format="avro")
    rule = decision(DecisionSettings(min_score=0.9, top_k=1))
    assert rule is not None
    card = replace(CARD, decision=bind(rule, CARD.labels, CARD.activation))
    send(broker, topics.input, 0, writer.value(1))
    with running(broker, topics, **avro) as worker:
        labelled(worker, 1)
        verdict(broker, topics, 1)
    send(broker, topics.input, 0, writer.value(2))
    chosen: dict[str, Any] = {"decision__min_score": 0.9, "decision__top_k": 1}
    with running(broker, topics, ObedientModel(card=card), **avro, **chosen) as worker:
        labelled(worker, 1)
        verdict(broker, topics, 2)
    values = [one.value for one in read(broker, topics.output, topics.partitions)]
    plain, decided = (decoded(registry, value) for value in values)
    assert (plain["label"], "decided" in plain) == ("POSITIVE", False)
    assert (decided["label"], decided["score"], decided["decided"]) == ("UNCERTAIN", 0.75, None)
    assert decided["labels"] == [{"label": "POSITIVE", "score": 0.75}]
    assert registry.ask("GET", f"/subjects/{topics.output}-value/versions") == [1, 2]
