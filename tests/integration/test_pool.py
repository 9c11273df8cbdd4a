"""`streamlabel run --processes 2`: real workers, real signals. Judged by `streamlabel audit`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.integration.test_metrics import FORMATS, scrape, sums
from tests.support.changing import Changing
from tests.support.models import make_checkpoint
from tests.support.sites import post
from tests.support.workers import WorkerProcess, audit, clock, count, produce, texts, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

PUBLISHED = "streamlabel_records_published_total"
INFLIGHT = 64
# A group instance id for each slot, which a successor takes over; one text a pass, eight a batch.
OPTIONS = (
    *("--processes", "2", "--log-format", "json", "--kafka-group-instance-id", "pool"),
    *("--batch-forward-tokens", "64", "--batch-max-records", "8"),
    *("--max-inflight-records", str(INFLIGHT), "--commit-interval", "0.1"),
)
# Thousands in a batch: the drain takes seconds.
AT_LENGTH = (
    *("--batch-max-records", "4000", "--batch-max-tokens", "1000000"),
    *("--max-inflight-records", "8000"),
    *("--batch-max-seconds", "60"),
)
_SLOW_LAYERS = 60  # a drain outlasts the second in which signals count as one


@pytest.fixture
def pool(
    broker: Broker, topics: Topics, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[WorkerProcess]:
    """`parametrize("pool", [flags], indirect=True)` adds flags to its own, and a slow model."""
    more = getattr(request, "param", ())
    slow = {"n_layers": _SLOW_LAYERS} if more else {}
    model = make_checkpoint(tmp_path / "model", max_tokens=64, **slow)
    started = WorkerProcess(broker, topics, model, tmp_path / "log", *OPTIONS, *more)
    try:
        wait_until(lambda: "2 of 2 ready" in started.get("/readyz")[1], 180, "both are ready")
        yield started
    finally:
        started.kill()


def said(pool: WorkerProcess, message: str) -> list[dict[str, int]]:
    """Return the log lines with this message."""
    lines = [json.loads(line) for line in pool.log.read_text().splitlines() if line[:1] == "{"]
    return [line for line in lines if line["message"] == message]


def test_a_pool_labels_everything_and_drains_at_sigterm(
    broker: Broker, topics: Topics, pool: WorkerProcess
) -> None:
    """One address, one exit code, even if the platform signals the workers as well as the parent.

    A text asked on the page meanwhile is answered and is no record.
    """
    produce(broker, topics.input, texts(200))
    wait_until(lambda: pool.metric(PUBLISHED) >= 100, what="it is under way")
    assert not any(sums(scrape(pool.port, *FORMATS[0])).values())
    status, answer = post(pool.port, "what a lovely morning")
    assert (status, json.loads(answer)["truncated"]) == (200, False), answer
    produce(broker, topics.input, texts(200, start=200))
    assert pool.get("/livez")[0] == 200
    assert pool.metric("streamlabel_state{") in (4, 5, 6), "each runs or is paused"
    for line in said(pool, "worker started"):
        os.kill(line["pid"], signal.SIGTERM)
    assert pool.stop() == 0, pool.log.read_text()
    assert sorted(line["slot"] for line in said(pool, "stopped")) == [0, 1]
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["missing"], verdict["duplicated"], verdict["reordered"]) == (0, 0, 0), verdict


def test_a_process_of_a_pool_that_is_killed_is_replaced_and_nothing_is_lost(
    broker: Broker, topics: Topics, pool: WorkerProcess
) -> None:
    """SIGKILL under load; the sums of the metrics never fall."""
    produce(broker, topics.input, texts(1000))
    wait_until(lambda: pool.metric(PUBLISHED) >= 50, what="it is under way")
    shown = [pool.metric(PUBLISHED)]
    os.kill(said(pool, "worker started")[1]["pid"], signal.SIGKILL)

    def again() -> bool:
        shown.append(pool.metric(PUBLISHED) or shown[-1])  # 0: no answer in time
        return "2 of 2 ready" in pool.get("/readyz")[1] and len(said(pool, "worker started")) == 3

    wait_until(again, 120, "the other one is ready")
    assert shown == sorted(shown)
    assert [line["slot"] for line in said(pool, "worker ended")] == [1]
    assert pool.metric("streamlabel_process_restarts_total") == 1
    if broker.kind == "embedded":
        pytest.skip("the embedded broker never lets a killed member go")
    wait_until(lambda: audit(broker, topics)["pending"] == 0, 120, "all is committed")
    assert pool.stop() == 0, pool.log.read_text()
    verdict = audit(broker, topics)
    assert (verdict["consumed"], verdict["missing"]) == (1000, 0), verdict
    assert (verdict["reordered"], verdict["orphans"]) == (0, 0), verdict
    # In flight in one of two, or acknowledged in the tenth of a second since the last commit.
    assert verdict["duplicated"] <= 2 * INFLIGHT, verdict
    assert count(broker, topics) == 1000 + verdict["duplicated"]


def test_workers_whose_parent_is_killed_drain_and_end(
    broker: Broker, topics: Topics, pool: WorkerProcess
) -> None:
    """They neither outlive it nor end abruptly: records in flight are committed."""
    produce(broker, topics.input, texts(200))
    wait_until(lambda: pool.metric(PUBLISHED) >= 50, what="it is under way")
    pool.kill()
    wait_until(lambda: len(said(pool, "stopped")) == 2, what="both have ended by themselves")
    verdict = audit(broker, topics)
    assert (verdict["missing"], verdict["duplicated"], verdict["reordered"]) == (0, 0, 0), verdict


@pytest.mark.parametrize("pool", [AT_LENGTH], indirect=True, ids=["busy"])
def test_a_second_signal_stops_a_pool_at_once(
    broker: Broker, topics: Topics, pool: WorkerProcess
) -> None:
    """Its workers stop too: the parent does not wait for their drain."""
    produce(broker, topics.input, texts(10_000, more=" and so on" * 30))
    wait_until(lambda: pool.metric("streamlabel_inflight_records") >= 2_000, what="it is busy")
    pool.process.send_signal(signal.SIGINT)
    clock.sleep(1.1)  # a signal within a second counts as the same request
    pool.process.send_signal(signal.SIGTERM)
    assert pool.process.wait(60) == 1, pool.log.read_text()
    assert "stopping at once" in pool.log.read_text()


def test_processes_keep_the_old_model_if_the_new_one_fails_and_a_successor_has_the_new_one(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    """SIGHUP reaches all processes here, as a platform may send it; the parent alone obeys it."""
    first, second = (make_checkpoint(tmp_path / name, seed=n) for n, name in enumerate("ab"))
    pool = Changing(broker, topics, tmp_path, first, *OPTIONS)

    def change(model: Path) -> dict[str, Any]:
        """Request a change by SIGHUP; return it once it has ended."""
        pool.write(model)
        for line in said(pool, "worker started")[-2:]:
            os.kill(line["pid"], signal.SIGHUP)
        pool.process.send_signal(signal.SIGHUP)

        def ended() -> bool:
            shown = pool.state().get("change") or {}
            return shown.get("name") == str(model) and shown["outcome"] != "loading"

        wait_until(ended, 180, "the change has ended")
        asked: dict[str, Any] = pool.state()["change"]
        return asked

    def wait_for(model: Path) -> None:
        wait_until(lambda: "2 of 2 ready" in pool.get("/readyz")[1], 180, "both are ready")
        names = [f'model="{model.name}"', 'slot="0"', 'slot="1"']

        def shown() -> bool:
            lines = pool.get("/metrics")[1].splitlines()
            found = [line for line in lines if line.startswith("streamlabel_process_model{")]
            return len(found) == 2 and all(name in " ".join(found) for name in names)

        wait_until(shown, 60, f"both have {model.name}")

    try:
        wait_for(first)
        failed = change(tmp_path / "missing")
        assert failed["outcome"] == "failed"
        assert failed["reason"].startswith("slot 0: there is no directory")
        assert failed["reason"].endswith("(slots 0, 1 keep the model they had)")
        wait_for(first)
        assert change(second)["outcome"] == "changed"
        os.kill(said(pool, "worker started")[0]["pid"], signal.SIGKILL)
        wait_until(lambda: len(said(pool, "worker started")) == 3, what="it is restarted")
        wait_for(second)
        assert [line["slot"] for line in said(pool, "worker ended")] == [0], "SIGHUP ends none"
        assert pool.stop() == 0, pool.log.read_text()
    finally:
        pool.kill()
