"""A worker changes its model under load: nothing is lost, and the offsets are those of the log."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.support.changing import Changing, takeovers
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, audit, produce, texts, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models with other weights and other labels."""
    folder = tmp_path_factory.mktemp("models")
    return (
        make_checkpoint(folder / "first", seed=1),
        make_checkpoint(folder / "second", seed=2, labels=("bad", "so-so", "good")),
    )


@contextmanager
def fed(broker: Broker, topics: Topics) -> Iterator[None]:
    """Send a steady stream to the input topic meanwhile."""
    stop = threading.Event()

    def run() -> None:
        sent = 0
        while not stop.wait(0.1):
            produce(broker, topics.input, texts(20, start=sent))
            sent += 20

    thread = threading.Thread(target=run, name="feed")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_model_changes_under_load_at_the_offsets_of_the_log(
    broker: Broker, topics: Topics, models: tuple[Path, Path], tmp_path: Path, delivery: str
) -> None:
    """Three changes: by a request, by SIGHUP, and by a settings file that changes."""
    first, second = models
    worker = Changing(
        *(broker, topics, tmp_path, first, "--delivery", delivery),
        *("--batch-max-records", "16", "--commit-interval", "0.5"),
    )
    try:
        worker.wait_ready()
        with fed(broker, topics):
            wait_until(lambda: worker.published > 100, what="the first model labels")
            assert worker.get("/model", {"name": str(second)})[0] == 202
            worker.wait_for_model(second, 3, topics.partitions)
            worker.watched = "true"
            worker.write(first)
            worker.process.send_signal(signal.SIGHUP)
            worker.wait_for_model(first, 2, topics.partitions)
            worker.write(second)
            worker.wait_for_model(second, 3, topics.partitions)
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.kill()
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["missing"], verdict["duplicated"], verdict["reordered"]) == (0, 0, 0)
    found, results = takeovers(broker, topics)
    logged = worker.logged_offsets(topics.input)
    assert {partition: changes[1:] for partition, changes in found.items()} == logged
    assert sorted(logged) == list(range(topics.partitions))
    assert {len(changes) for changes in logged.values()} == {3}
    labels = {one["model"]["name"]: {s["label"] for s in one["labels"]} for one in results}
    assert labels == {"first": {"NEGATIVE", "POSITIVE"}, "second": {"bad", "so-so", "good"}}
    changed = worker.told("model changed: it labels from the next micro-batch on")
    assert [line["trigger"] for line in changed] == ["POST /model", "SIGHUP", "settings file"]


def refused(worker: Changing, ask: Callable[[], object], outcome: str, reason: str) -> None:
    """Ask for a change that must not happen, and check that its reason is told."""
    before = worker.metric(f'streamlabel_model_changes_total{{outcome="{outcome}"}}')
    ask()
    wait_until(
        lambda: worker.metric(f'streamlabel_model_changes_total{{outcome="{outcome}"}}') > before,
        120,
        f"the change is {outcome}",
    )
    change = worker.state()["change"]
    assert change["outcome"] == outcome
    assert reason in change["reason"]


def test_a_model_that_does_not_load_or_fit_leaves_the_old_one(
    broker: Broker, topics: Topics, models: tuple[Path, Path], tmp_path: Path
) -> None:
    first, _ = models
    broken = make_checkpoint(tmp_path / "broken", seed=3)
    (broken / "model.safetensors").write_bytes(b"nothing of use")
    many = make_checkpoint(tmp_path / "many", labels=[f"{n:0500}" for n in range(3000)])
    worker = Changing(broker, topics, tmp_path, first)

    def hang_up() -> None:
        worker.process.send_signal(signal.SIGHUP)

    def post(**members: object) -> None:
        assert worker.get("/model", members)[0] == 202

    try:
        worker.wait_ready()
        refused(worker, lambda: post(name=str(broken)), "failed", "broken can't be loaded")
        refused(worker, lambda: post(name=str(tmp_path / "none")), "failed", "no directory")
        refused(worker, lambda: post(name=str(many)), "refused", "bytes")
        refused(worker, hang_up, "unchanged", "in use already")
        worker.file.write_text("[model]\nnames = 3\n")
        refused(worker, hang_up, "refused", "model.names: no such setting")
        assert worker.get("/model", {"name": 3}) == (
            400,
            "model.name = 3: must be a string (from POST /model)\n",
        )
        worker.write(first)
        with worker.file.open("a") as file:
            file.write("[batch]\nmax_records = 8\n")
        refused(worker, hang_up, "unchanged", "in use already")
        produce(broker, topics.input, texts(50))
        wait_until(lambda: worker.published == 50, what="all are labelled")
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.kill()
    assert {one["model"]["name"] for one in takeovers(broker, topics)[1]} == {"first"}
    (waiting,) = worker.told("changed settings need a restart to take effect")
    assert waiting["settings"] == ["batch.max_records"]
    assert not worker.told("model took over")


def test_sighup_stops_a_worker_without_a_settings_file(
    broker: Broker, topics: Topics, models: tuple[Path, Path], tmp_path: Path
) -> None:
    worker = WorkerProcess(broker, topics, models[0], tmp_path / "worker.log")
    try:
        worker.wait_ready()
        worker.process.send_signal(signal.SIGHUP)
        assert worker.process.wait(60) == 0
    finally:
        worker.kill()
