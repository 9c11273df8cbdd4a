"""A worker, or a pool, whose model changes; and where its results say that it changed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.conftest import Broker, Topics
from tests.support.workers import WorkerProcess, read, wait_until
from worker.core.coordinates import SOURCE_HEADER, parse_source

TOKEN = "a-token-of-this-test"

# Input partition -> the weights of each model that labelled it, and the first offset of each.
Offsets = dict[int, list[tuple[str, int]]]


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
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{")
        return [line for line in lines if line["message"] == event]

    def logged_offsets(self, topic: str) -> Offsets:
        """Return the first offsets in the log, without those of the first model."""
        found: Offsets = {}
        for line in self.told("model took over"):
            assert line["topic"] == topic
            found.setdefault(line["partition"], []).append((line["weights_sha256"], line["offset"]))
        return found


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
