"""A worker changes its model under load: nothing is lost, and the offsets are those of the log."""

from __future__ import annotations

import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, audit, produce, read, texts, wait_until
from worker.core.coordinates import SOURCE_HEADER, parse_source

pytestmark = pytest.mark.integration

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models with other weights and other labels."""
    folder = tmp_path_factory.mktemp("models")
    return (
        make_checkpoint(folder / "first", seed=1),
        make_checkpoint(folder / "second", seed=2, labels=("bad", "so-so", "good")),
    )


class Changing(WorkerProcess):
    """A worker with a settings file that names its model, and a token."""

    def __init__(
        self, broker: Broker, topics: Topics, folder: Path, model: Path, *more: str
    ) -> None:
        self.file, self.watched = folder / "streamlabel.toml", "false"
        self.write(model)
        super().__init__(
            *(broker, topics, None, folder / "worker.log"), "--config", str(self.file), *more
        )

    def write(self, model: Path | str) -> None:
        """Name another model in the settings file."""
        self.file.write_text(
            f'[model]\nname = "{model}"\nreload_on_change = {self.watched}\n'
            f'[http]\ntoken = "{TOKEN}"\n'
        )

    def get(self, path: str, body: Any = None) -> tuple[int, str]:
        """Return status and body of a GET, or of a POST with a body."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def state(self) -> dict[str, Any]:
        """Return what GET /model shows."""
        shown: dict[str, Any] = json.loads(self.get("/model")[1] or '{"model": null}')
        return shown

    def wait_for_model(self, model: Path, labels: int, partitions: int) -> None:
        """Wait until each partition has a first offset under the model."""

        def took_over() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            lines = self.get("/metrics")[1].splitlines()
            first = [line for line in lines if line.startswith("streamlabel_model_first_offset{")]
            return sum(f'model="{model.name}"' in line for line in first) == partitions

        wait_until(took_over, 180, f"{model.name} has taken over")
        shown = self.state()
        assert (shown["model"]["name"], shown["change"]["outcome"]) == (model.name, "changed")
        assert len(shown["model"]["labels"]) == labels

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log that tell of an event."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if line["message"] == event]


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


Offsets = dict[int, list[tuple[str, int]]]


def takeovers(broker: Broker, topics: Topics) -> tuple[Offsets, list[Any]]:
    """Return, for each input partition, each model of its results and the first offset of it.

    The results come second, each parsed, in the order of their source.
    """
    results = []
    for record in read(broker, topics.output, topics.partitions):
        source = parse_source(dict(record.headers)[SOURCE_HEADER])
        assert source
        results.append((source[1], source[2], json.loads(record.value)))
    found: Offsets = {}
    for partition, offset, result in sorted(results, key=lambda one: one[:2]):
        weights, changes = result["model"]["weights_sha256"], found.setdefault(partition, [])
        if not changes or changes[-1][0] != weights:
            changes.append((weights, offset))
    return found, [result for *_, result in results]


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
    logged: Offsets = {}
    for line in worker.told("model took over"):
        assert line["topic"] == topics.input
        logged.setdefault(line["partition"], []).append((line["weights_sha256"], line["offset"]))
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
