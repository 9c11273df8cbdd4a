"""A person who opens the page after a run sees what happened, and so does `streamlabel top`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, produce, texts, wait_until
from worker.http.client import Snapshot, snapshots
from worker.settings import child_environment

pytestmark = pytest.mark.integration

RECORDS = 200


def test_a_late_reader_sees_what_happened(broker: Broker, topics: Topics, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    worker = WorkerProcess(broker, topics, model, tmp_path / "log")
    address = f"http://127.0.0.1:{worker.port}"
    try:
        wait_until(lambda: worker.get("/readyz")[0] == 200, what="it is ready")
        # Ends are known only once they were asked for; what came before is no arrival.
        produce(broker, topics.input, texts(30))
        wait_until(lambda: worker.metric("streamlabel_records_published_total") == 30)
        produce(broker, topics.input, [*texts(RECORDS), (None, b"not json")])
        wait_until(
            lambda: worker.metric("streamlabel_offsets_arrived_total") >= RECORDS + 1,
            what="all have arrived",
        )
        wait_until(lambda: worker.metric("streamlabel_records_dead_lettered_total") == 1)
        wait_until(lambda: is_over(next(snapshots(address))), what="the run is over")
        check_snapshot(worker, topics)
        top = subprocess.run(
            [sys.executable, "-m", "worker", "top", "--once", address],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=child_environment(COLUMNS="200"),
        )
        assert topics.input in top.stdout.splitlines()[0]
        assert f"{RECORDS + 30} labelled" in top.stdout
        assert "caught up" in top.stdout
        assert "not_json" in top.stdout
    finally:
        worker.kill()


def is_over(snapshot: Snapshot) -> bool:
    """Return whether a snapshot, which may be a second old, counts all and shows no rate."""
    totals, rates = snapshot["totals"], snapshot["rates"]
    counted = (totals["published"], totals["dead_lettered"]) == (RECORDS + 30, 1)
    return counted and rates == {"arriving": 0, "labelled": 0, "dead_letters": 0}


def check_snapshot(worker: WorkerProcess, topics: Topics) -> None:
    snapshot = next(snapshots(f"http://127.0.0.1:{worker.port}"))
    assert snapshot["identity"]["inputs"] == [topics.input]
    assert snapshot["identity"]["group"] == topics.group
    assert snapshot["last_at"] is not None
    assert snapshot["latency"]["p99"] > 0
    assert snapshot["run"]["labelled"] > 0
    assert sum(snapshot["shares"]["stages"].values()) == pytest.approx(100)
    assert snapshot["lag"]["records"] == 0
    assert snapshot["lag"]["trend"] == "none"
    (letter,) = snapshot["dead_letters"]["latest"]
    assert (letter["topic"], letter["reason"], letter["bytes"]) == (topics.input, "not_json", 8)
    assert "text" not in letter
    assert len(snapshot["models"][0]["first_offsets"]) >= 1
    status, body = worker.get("/history?range=5m")
    points = json.loads(body)["points"]
    assert status == 200
    assert max(point["arriving"] for point in points) > 0
    assert max(point["labelled"] for point in points) > 0
