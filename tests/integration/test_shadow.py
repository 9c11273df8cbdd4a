"""A second model beside the worker's: what it shows is what a count made afterwards shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, audit, flags, produce, read, texts, wait_until
from worker.core.shadow import is_chosen
from worker.inference.loading import load as load_model
from worker.kafka_io.admin import Admin
from worker.settings import KafkaSettings, ModelSettings, child_environment, options

pytestmark = pytest.mark.integration

RECORDS, SHARE = 400, 0.5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make_checkpoint(folder / "first"), make_checkpoint(folder / "second", seed=7)


@dataclass
class Compared:
    """A worker that has labelled all records, and compared those that it should.

    Attributes:
        texts: of the records that are compared.
    """

    worker: WorkerProcess
    broker: Broker
    topics: Topics
    texts: list[str]

    def metric(self, name: str) -> float:
        return self.worker.metric(f"streamlabel_shadow_{name}")

    def flips(self) -> Counter[tuple[str, str]]:
        """Return the worker's own count, from its metrics."""
        found = re.findall(
            r'^streamlabel_shadow_flips_total{.*from="(\w+)",to="(\w+)"} ([\d.]+)$',
            self.worker.get("/metrics")[1],
            re.MULTILINE,
        )
        return Counter({(a, b): int(float(number)) for a, b, number in found})


@pytest.fixture
def compared(
    broker: Broker,
    topics: Topics,
    models: tuple[Path, Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Compared]:
    """One process, or as many as a test asks for."""
    processes: int = getattr(request, "param", 1)
    shadow_topic = shadow_topic_of(topics)
    with Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) as admin:
        admin.create(shadow_topic, 2)
    worker = WorkerProcess(
        broker,
        topics,
        models[0],
        tmp_path / "log",
        *("--shadow-name", str(models[1]), "--shadow-share", str(SHARE)),
        *("--shadow-topic", shadow_topic, "--shadow-engine", "packed", "--shadow-max-cost", "100"),
        *("--model-dtype", "float32", "--shadow-dtype", "float32"),
        *("--processes", str(processes)),
    )
    try:
        worker.wait_ready()
        wait_until(
            lambda: worker.metric("streamlabel_shadow_state") == 2 * processes, 120, "all compare"
        )
        produce(broker, topics.input, texts(RECORDS))
        inputs = [
            json.loads(record.value)["text"]
            for record in read(broker, topics.input, topics.partitions)
            if is_chosen(topics.input, record.partition, record.offset, SHARE)
        ]
        found = Compared(worker, broker, topics, inputs)
        wait_until(lambda: found.metric("texts_total") == len(inputs), what="all are compared")
        wait_until(lambda: worker.published == RECORDS, what="all are published")
        yield found
    finally:
        worker.kill()


def shadow_topic_of(topics: Topics) -> str:
    return f"{topics.output}.shadow"


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


@pytest.mark.parametrize("compared", [1, 2], indirect=True)
def test_the_flips_are_those_of_a_count_made_with_both_models(
    compared: Compared, models: tuple[Path, Path]
) -> None:
    """The count labels the chosen texts with each model alone, without a worker."""
    ours, theirs = (labels_of(model, compared.texts) for model in models)
    expected = Counter(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
    assert expected, "the models must differ"
    assert compared.flips() == expected
    assert compared.metric("agreed_total") == len(compared.texts) - expected.total()
    assert compared.metric("skipped_total") == 0


def test_the_report_of_the_worker_and_that_of_the_topics_are_the_same(compared: Compared) -> None:
    broker, topics = compared.broker, compared.topics
    url = f"http://127.0.0.1:{compared.worker.port}"
    wait_until(
        lambda: len(read(broker, shadow_topic_of(topics), 2)) == len(compared.texts),
        what="the shadow's results are published",
    )
    compared.worker.page(lambda shown: shown["shadow"]["texts"] == len(compared.texts))
    of_worker = report(broker, topics, "--url", url)
    of_topics = report(broker, topics, "--topics", "--shadow-topic", shadow_topic_of(topics))
    figures = ("model", "against", "texts", "agreed", "agreement", "interval", "flips")
    assert {name: of_worker[name] for name in figures} == {n: of_topics[n] for n in figures}
    assert of_worker["divergence"] == pytest.approx(of_topics["divergence"])
    assert (of_topics["unmatched"], of_topics["others"]) == (0, 0)
    assert of_worker["skipped"] == {"loading": 0, "behind": 0, "failed": 0}


def test_the_shadow_changes_no_outcome(compared: Compared) -> None:
    """Its results are in its own topic alone, and the audit finds each record labelled once."""
    answer = audit(compared.broker, compared.topics, "--to-end")
    assert answer["holds"]
    assert (answer["published"], answer["duplicated"]) == (RECORDS, 0)
    names = {
        json.loads(record.value)["model"]["name"]
        for record in read(compared.broker, compared.topics.output, compared.topics.partitions)
    }
    assert len(names) == 1


def test_a_second_model_that_cannot_be_loaded_does_not_stop_the_worker(
    broker: Broker, topics: Topics, models: tuple[Path, Path], tmp_path: Path
) -> None:
    worker = WorkerProcess(
        broker, topics, models[0], tmp_path / "log", "--shadow-name", str(tmp_path / "nothing")
    )
    try:
        worker.wait_ready()
        wait_until(lambda: worker.metric("streamlabel_shadow_state") == 3, 60, "it is off")
        produce(broker, topics.input, texts(50))
        wait_until(lambda: worker.published == 50, what="all are labelled")
        assert worker.stop() == 0
        assert "the shadow is off, the worker goes on without it" in worker.log.read_text()
    finally:
        worker.kill()
