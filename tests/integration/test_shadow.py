"""A second model beside the worker's: what it shows is what a count made afterwards shows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, create_topic, flags, produce, texts, wait_until
from worker.core.shadow import is_chosen
from worker.inference.loading import load as load_model
from worker.settings import ModelSettings, child_environment, options

pytestmark = pytest.mark.integration

RECORDS, SHARE = 400, 0.5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make_checkpoint(folder / "first"), make_checkpoint(folder / "second", seed=7)


@pytest.fixture
def worker(
    broker: Broker, topics: Topics, models: tuple[Path, Path], tmp_path: Path
) -> Iterator[WorkerProcess]:
    """A worker that has labelled all records, and compared those that it should."""
    shadow_topic = f"{topics.output}.shadow"
    create_topic(broker, shadow_topic, 2)
    started = WorkerProcess(
        broker,
        topics,
        models[0],
        tmp_path / "log",
        *("--shadow-name", str(models[1]), "--shadow-share", str(SHARE)),
        *("--shadow-topic", shadow_topic, "--shadow-engine", "packed", "--shadow-max-cost", "100"),
        *("--model-dtype", "float32", "--shadow-dtype", "float32"),
    )
    try:
        started.wait_ready()
        wait_until(lambda: started.metric("streamlabel_shadow_state") == 2, 60, "it compares")
        produce(broker, topics.input, texts(RECORDS))
        wait_until(lambda: started.published == RECORDS, what="all are labelled")
        wait_until(lambda: compared(started) == chosen_records(started), what="all are compared")
        yield started
    finally:
        started.kill()


def compared(worker: WorkerProcess) -> float:
    return worker.metric("streamlabel_shadow_texts_total{")


def chosen_records(worker: WorkerProcess) -> float:
    """Return how many records a worker's metrics say were chosen, which is all that it skipped."""
    return compared(worker) + worker.metric("streamlabel_shadow_skipped_total{")


def report(broker: Broker, topics: Topics, *more: str) -> dict[str, Any]:
    given = flags(broker, topics)
    names = ("kafka.bootstrap_servers", "input.topic", "output.topic")
    places = [f"{o.flag}={given[o.path]}" for o in options() if o.path in names]
    command = [sys.executable, "-m", "worker", "shadow", "report", "--json", *more, *places]
    done = subprocess.run(
        command, capture_output=True, text=True, env=child_environment(), timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def labels_of(model: Path, some: list[str]) -> list[str]:
    """Label texts with a model alone, as no worker did."""
    settings = ModelSettings(name=str(model), dtype="float32", engine="packed", threads=1)
    tokeniser, classifier = load_model(settings, forward_tokens=4096)
    found = [""] * len(some)
    for model_input in tokeniser.tokenise(some):
        for at, one in zip(model_input.positions, classifier.predict(model_input), strict=True):
            best = one.probabilities.index(max(one.probabilities))
            found[at] = classifier.card.labels[best]
    return found
