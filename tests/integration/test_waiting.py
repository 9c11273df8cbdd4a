"""`wait_for_topics`: a worker that starts before its topics exist, and one that loses a topic."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import (
    WorkerProcess,
    audit,
    count,
    needs_kafka,
    produce,
    texts,
    wait_until,
)
from worker.cli.main import main

pytestmark = pytest.mark.integration

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), max_tokens=64)


@pytest.fixture
def start(broker: Broker, topics: Topics, model: Path, tmp_path: Path) -> Iterator[Start]:
    """Return `start(*flags)`, which starts a worker that waits; all end with the test."""
    started: list[WorkerProcess] = []

    def start_one(*more: str, on: Topics = topics) -> WorkerProcess:
        log = tmp_path / f"{len(started)}.log"
        given = ("--wait-for-topics", "--log-format", "json", *more)
        started.append(WorkerProcess(broker, on, model, log, *given))
        return started[-1]

    yield start_one
    for worker in started:
        worker.kill()


def absent(topics: Topics) -> Topics:
    """Return topics that don't exist: all but the input."""
    return Topics(topics.input, topics.output + ".new", topics.dead + ".new", topics.group, 3)


def waits(worker: WorkerProcess) -> str:
    """Return what /readyz says once the worker waits for topics."""

    def said() -> bool:
        assert worker.process.poll() is None, worker.log.read_text()
        return "topics missing" in worker.get("/readyz")[1]

    wait_until(said, 120, "it says which topics are missing")
    status, text = worker.get("/readyz")
    assert status == 503
    assert worker.get("/livez")[0] == 200
    return text


def create_as_told(text: str) -> None:
    """Run the command between the backquotes of a message."""
    _, command, *_ = text.split("`")  # a pool may say it for each process
    assert main(shlex.split(command)[1:]) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_and_a_pool_wait_for_their_topics_and_then_label(
    broker: Broker, topics: Topics, start: Start, processes: str
) -> None:
    """/readyz and the log name the missing topics, and the command that they give is enough."""
    fresh = absent(topics)
    produce(broker, fresh.input, texts(10))
    worker = start("--processes", processes, on=fresh)
    text = waits(worker)
    missing = f"topics missing on {broker.bootstrap_servers}: {fresh.output}, {fresh.dead};"
    assert missing in text
    wait_until(lambda: '"waiting for topics"' in worker.log.read_text(), 60, "it is logged")
    assert missing in worker.log.read_text()
    wait_until(lambda: '"starting"' in worker.log.read_text(), 120, "the model is loaded meanwhile")
    create_as_told(text)
    worker.wait_ready()
    wait_until(lambda: count(broker, fresh) == 10, what="all are labelled")
    assert worker.stop() == 0
    assert worker.log.read_text().count('"waiting for topics"') == int(processes)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_stop_ends_the_wait_for_topics(topics: Topics, start: Start, processes: str) -> None:
    worker = start("--processes", processes, on=absent(topics))
    waits(worker)
    assert worker.stop() == 0, worker.log.read_text()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_whose_topic_is_deleted_ends_and_its_successor_waits(
    broker: Broker, topics: Topics, start: Start, admin: KafkaAdminClient, delivery: str
) -> None:
    """The dead letters' topic: no outcome was in it, so nothing may be missing or repeated."""
    needs_kafka(broker, "answers for a deleted topic in another way")
    worker = start("--delivery", delivery)
    worker.wait_ready()
    produce(broker, topics.input, texts(50))
    wait_until(lambda: worker.published == 50, what="the first records are labelled")
    admin.delete_topics([topics.dead])
    assert worker.process.wait(120) == 1
    assert f"topic '{topics.dead}' was deleted" in worker.log.read_text()
    produce(broker, topics.input, texts(50, start=50))
    successor = start("--delivery", delivery)
    create_as_told(waits(successor))
    wait_until(lambda: count(broker, topics) == 100, what="all are labelled")
    assert successor.stop() == 0
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["missing"], verdict["duplicated"], verdict["reordered"]) == (0, 0, 0), verdict
