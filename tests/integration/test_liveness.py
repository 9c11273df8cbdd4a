"""Stalled work is detected, named in the log and survived, through the whole worker."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka.future import Future
from structlog.testing import capture_logs

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.own_kafka import admin_of, named, own_kafka
from tests.support.planted_death import PLACES
from tests.support.records import CARD
from tests.support.workers import (
    ObedientModel,
    WorkerProcess,
    WorkerThread,
    audit,
    clock,
    count,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.core.records import Encoded
from worker.core.state import State
from worker.errors import Fatal, StageCrashed
from worker.http.server import HttpServer
from worker.kafka_io.publisher import Publisher
from worker.settings import HttpSettings

pytestmark = [pytest.mark.integration, pytest.mark.allow_errors]

# One text a forward pass: two exceed the budget.
ONE_BY_ONE = replace(CARD, forward_tokens=16)


class Gate:
    """A model that hangs from a given text on, until it is released."""

    def __init__(self, words: str = "") -> None:
        self._words = words
        self.reached, self._open = threading.Event(), threading.Event()
        self.model = ObedientModel(self._wait)

    def _wait(self, given: Sequence[str]) -> None:
        if not self._words or self._words in given:
            self.reached.set()
            self._open.wait(120)

    def let_go(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.let_go()


@contextlib.contextmanager
def served(worker: WorkerThread) -> Iterator[str]:
    """The URL of the worker's health."""
    server = HttpServer(HttpSettings(port=0), worker.metrics, worker.progress)
    try:
        yield f"http://127.0.0.1:{server.port}/livez"
    finally:
        server.close()


def status(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# -- a stall -----------------------------------------------------------------------------------


def test_a_text_that_hangs_the_model_turns_livez_red_and_is_named(
    broker: Broker, topics: Topics, gate: Gate
) -> None:
    """FIELD complaint 10: one bad text hangs the server while health says 200."""
    produce(broker, topics.input, texts(5))
    with (
        capture_logs() as lines,
        running(broker, topics, gate.model, stall_timeout=1.0) as worker,
        served(worker) as url,
    ):
        wait_until(lambda: status(url)[0] == 503, 30, "livez is red")
        wait_until(lambda: "the infer stage has held 5 records" in status(url)[1], 30, "all named")
        gate.let_go()
        wait_until(lambda: status(url)[0] == 200, 30, "livez is green again")
        wait_until(lambda: count(broker, topics) == 5, what="all are labelled")
    # The last records may then wait for a broker; a busy machine may call that a stall, too.
    stalls = [line for line in lines if line["event"] == "stalled"]
    (said,) = [line for line in stalls if "the infer stage has held" in line["reason"]]
    assert "in predict" in said["threads"]
    assert "post number" not in said["threads"]


def test_a_tokenizer_that_hangs_is_named(broker: Broker, topics: Topics, gate: Gate) -> None:
    produce(broker, topics.input, texts(5))
    model = ObedientModel(on_tokenise=gate.model.on_predict)
    with running(broker, topics, model, stall_timeout=1.0) as worker:
        wait_until(lambda: "tokenise stage" in worker.progress.live()[1], 30, "it is named")
        gate.let_go()
        wait_until(lambda: worker.progress.live()[0], 30, "livez is green again")


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_slow_batch_that_makes_progress_is_no_stall(broker: Broker, topics: Topics) -> None:
    """It takes far longer than the timeout, one forward pass at a time."""

    def slowly(_: list[str]) -> None:
        clock.sleep(0.1)

    produce(broker, topics.input, texts(100))
    model = ObedientModel(slowly, card=ONE_BY_ONE)
    red: list[str] = []

    def done() -> bool:
        good, words = worker.progress.live()
        if not good:
            red.append(words)
        return len(model.predicted) == 100

    with running(broker, topics, model, stall_timeout=4.0) as worker:
        wait_until(done, what="all have gone through the model")
        wait_until(lambda: count(broker, topics) == 100, what="all are labelled")
    assert not red
    assert worker.value("streamlabel_stage_seconds_sum", stage="infer") > 8
    assert worker.value("streamlabel_stage_seconds_count", stage="infer") <= 2


def test_missing_acknowledgements_are_named() -> None:
    """The broker is frozen: connections stay open, no answer comes, no record is lost."""
    topics, gate = Topics("in", "out", "dead", "group", 1), Gate("post number 1")
    with own_kafka() as kafka:
        broker = named(kafka)
        with admin_of(kafka, topics):
            pass
        with running(broker, topics, gate.model, stall_timeout=2.0) as worker:
            produce(broker, topics.input, texts(1))
            wait_until(
                lambda: worker.value("streamlabel_stage_seconds_count", stage="commit") == 1,
                what="the first one is labelled and committed",
            )
            produce(broker, topics.input, texts(19, start=1))
            assert gate.reached.wait(60)
            kafka.nodes[0].freeze()
            try:
                gate.let_go()
                wait_until(lambda: not worker.progress.live()[0], 30, "livez is red")
                assert "the broker has not acknowledged the oldest of" in worker.progress.live()[1]
            finally:
                kafka.nodes[0].thaw()
            wait_until(lambda: count(broker, topics) == 20, what="all are labelled")
            wait_until(lambda: worker.progress.live()[0], 30, "livez is green again")
        assert audit(broker, topics)["holds"]


def test_a_record_that_is_never_acknowledged_is_named_and_holds_back_no_more_than_the_bound(
    broker: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partition has no leader; later records were held without bound or log line."""
    unanswered: list[tuple[Future, Publisher, Encoded]] = []
    send = Publisher.send

    def lose_the_first(self: Publisher, outcome: Encoded) -> Any:
        if unanswered:
            return send(self, outcome)
        unanswered.append((Future(), self, outcome))
        return unanswered[0][0]

    monkeypatch.setattr(Publisher, "send", lose_the_first)
    bound = 64
    small: dict[str, Any] = {"max_inflight_records": bound, "batch__max_records": 4}
    with running(broker, topics, stall_timeout=3, **small) as worker:
        produce(broker, topics.input, texts(600))  # each partition has more than the bound
        wait_until(lambda: not worker.progress.live()[0], 30, "livez is red")
        assert worker.progress.state is State.PAUSED
        wait_until(
            lambda: worker.value("streamlabel_inflight_records") <= 4, 30, "one batch is in flight"
        )
        assert bound / 2 < worker.value("streamlabel_held_records") <= bound
        lost, publisher, outcome = unanswered[0]
        where = f"{topics.input}[{outcome.ref.partition}] offset {outcome.ref.offset}, polled"
        assert where in worker.progress.live()[1]
        send(publisher, outcome).add_callback(lost.success)
        wait_until(lambda: count(broker, topics) == 600, what="all are labelled")
        wait_until(lambda: worker.progress.live() == (True, "running"), 30, "livez is green again")
    assert audit(broker, topics)["missing"] == 0


def test_partitions_that_return_while_polling_is_paused_are_read_again(
    broker: Broker, topics: Topics, gate: Gate
) -> None:
    """FIELD complaint 8: silent stall after a rebalance."""
    if broker.kind == "embedded":
        pytest.skip("the embedded broker ends a member's generation the moment another one joins")
    produce(broker, topics.input, texts(300))
    small: dict[str, Any] = {"max_inflight_records": 64, "batch__max_records": 16}
    with running(
        broker, topics, gate.model, stall_timeout=30, rebalance_drain_timeout=1, **small
    ) as first:
        wait_until(lambda: first.progress.state is State.PAUSED, what="polling is paused")
        with running(broker, topics, **small) as second:
            wait_until(
                lambda: second.value("streamlabel_records_published_total") > 0,
                what="the second has taken over",
            )
        gate.let_go()
        produce(broker, topics.input, texts(300, start=300))
        wait_until(
            lambda: count(broker, topics) >= 600, what="all partitions are read to their end"
        )
        assert first.progress.live()[0]
    verdict = audit(broker, topics)
    assert (verdict["consumed"], verdict["missing"], verdict["pending"]) == (600, 0, 0), verdict


# -- a stop in the middle ----------------------------------------------------------------------


def test_a_stop_breaks_a_batch_between_two_forward_passes(broker: Broker, topics: Topics) -> None:
    """FIELD complaint 7: shutdown must break mid-batch. The rest is processed again, once."""

    def slowly(_: list[str]) -> None:
        clock.sleep(0.2)

    produce(broker, topics.input, texts(120))
    model = ObedientModel(slowly, card=ONE_BY_ONE)
    with running(broker, topics, model, shutdown_timeout=2) as worker:
        wait_until(lambda: len(model.predicted) > 3, what="the batch has begun")
        with pytest.raises(Fatal, match="within shutdown_timeout"):
            worker.stop(timeout=20)
    passes = len(model.predicted)
    assert passes < 120
    clock.sleep(0.5)
    assert len(model.predicted) == passes, "the infer thread went on"
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 120, what="a successor labels the rest")
    verdict = audit(broker, topics)
    assert (verdict["consumed"], verdict["missing"], verdict["duplicated"]) == (120, 0, 0), verdict


def test_a_stop_does_not_wait_for_a_forward_pass_that_hangs(
    broker: Broker, topics: Topics, gate: Gate
) -> None:
    """FIELD complaint 7: the pass can't be interrupted; its thread is abandoned."""
    produce(broker, topics.input, texts(20))
    with running(broker, topics, gate.model, shutdown_timeout=2) as worker:
        assert gate.reached.wait(60)
        with pytest.raises(Fatal, match="20 records in flight not published"):
            worker.stop(timeout=20)
    gate.let_go()
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 20, what="a successor labels them")
    assert audit(broker, topics)["duplicated"] == 0


# -- a thread that dies ------------------------------------------------------------------------


def test_a_stage_that_dies_ends_the_worker(broker: Broker, topics: Topics) -> None:
    """FIELD complaint 10: one bad text kills the server while health says 200."""

    def die(_: list[str]) -> None:
        raise SystemExit("thread gone")

    produce(broker, topics.input, texts(5))
    with running(broker, topics, ObedientModel(die)) as worker:
        worker.join(30)
    assert isinstance(worker.error, StageCrashed)
    assert "infer" in str(worker.error)
    assert worker.progress.live() == (False, "failed")


@pytest.mark.parametrize("thread", PLACES)
def test_a_thread_that_dies_ends_the_process(
    thread: str, broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    """FIELD complaint 8: silent stall. Exit code 1 and the thread's name; no record is lost."""
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    log = tmp_path / "worker.log"
    program = ("tests.support.planted_death", thread)
    produce(broker, topics.input, texts(60))
    small = ("--batch-max-records", "8")
    child = WorkerProcess(broker, topics, model, log, *small, program=program)
    try:
        assert child.process.wait(90) == 1, log.read_text()
    finally:
        child.kill()
    who = "the main loop" if thread == "main" else f"the {thread} stage"
    assert f"{who} crashed: {PLACES[thread][2].__name__}" in log.read_text()
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) >= 60, what="a successor labels the rest")
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["missing"]) == (60, 0)
    assert len(read(broker, topics.dead, 3)) == 0
