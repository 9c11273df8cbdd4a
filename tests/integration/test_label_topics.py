"""Topics named after labels: created by the command, and made ready before another model labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.integration.test_topics import flags
from tests.support.changing import Changing
from tests.support.models import make_checkpoint
from tests.support.workers import produce, read, texts, wait_until
from worker.cli.main import main

pytestmark = pytest.mark.integration


def test_the_topics_of_labels_are_ready_before_another_model_takes_over(
    broker: Broker, topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model whose topics are missing is refused, and the one in use goes on."""
    first = make_checkpoint(tmp_path / "first", seed=1)
    second = make_checkpoint(tmp_path / "second", seed=2, labels=("bad", "so so", "good"))
    route = f'[{{name = "by-label", topic = "{topics.output}.{{label}}"}}]'
    create = ["topics", "create", *flags(broker, topics), "--routes", route]
    assert main([*create, "--model", str(first)]) == 0
    assert f"created  {topics.output}.NEGATIVE" in capsys.readouterr().out
    worker = Changing(broker, topics, tmp_path, first, "--routes", route)
    try:
        worker.wait_ready()
        assert worker.get("/model", {"name": str(second)})[0] == 202
        wait_until(
            lambda: worker.state()["change"]["outcome"] == "refused", 120, "the model is refused"
        )
        reason = worker.state()["change"]["reason"]
        assert f"{topics.output}.so_so" in reason
        assert "streamlabel topics create" in reason
        produce(broker, topics.input, texts(30))
        wait_until(lambda: worker.published == 30, what="the first model labels")
        assert main([*create, "--model", str(second)]) == 0
        assert f"created  {topics.output}.so_so" in capsys.readouterr().out
        assert worker.get("/model", {"name": str(second)})[0] == 202
        wait_until(
            lambda: worker.state()["change"]["outcome"] == "changed", 120, "the model changes"
        )
        produce(broker, topics.input, texts(30, start=30))
        wait_until(lambda: worker.published == 60, what="the second model labels")
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.kill()
    assert read(broker, topics.output, topics.partitions) == []
    for label in ("NEGATIVE", "POSITIVE", "bad", "so so", "good"):
        name = f"{topics.output}.{label.replace(' ', '_')}"
        found = [json.loads(one.value) for one in read(broker, name, topics.partitions)]
        assert {one["label"] for one in found} <= {label}
