"""`streamlabel run` as a process: signals, health, wrong use. Judged by `streamlabel audit`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Broker, Topics
from tests.support.feeding import Feed
from tests.support.models import make_checkpoint
from tests.support.ports import free_port
from tests.support.workers import (
    WorkerProcess,
    audit,
    clock,
    count,
    produce,
    texts,
    wait_until,
)

pytestmark = pytest.mark.integration

Start = Callable[..., WorkerProcess]

# One text a pass and eight a batch: slow enough to interrupt in the middle.
SLOWLY = (
    "--batch-forward-tokens",
    "64",
    "--batch-max-records",
    "8",
    "--max-inflight-records",
    "64",
)

# Thousands of long texts in a batch: the drain takes seconds even on a fast machine.
AT_LENGTH = (
    *("--batch-forward-tokens", "64", "--batch-max-records", "4000"),
    *("--batch-max-tokens", "1000000", "--max-inflight-records", "8000"),
    *("--batch-max-seconds", "60"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), max_tokens=64)


@pytest.fixture
def feed(broker: Broker, topics: Topics) -> Iterator[Feed]:
    """A steady stream to the input topic."""
    with Feed(lambda at, number: produce(broker, topics.input, texts(number, at))) as feed:
        yield feed


@pytest.fixture
def start(broker: Broker, topics: Topics, model: Path, tmp_path: Path) -> Iterator[Start]:
    """Return `start(*flags)`, which starts a worker on the test's topics; all end with the test."""
    started: list[WorkerProcess] = []

    def start_one(*more: str, at: Broker = broker, on: Topics = topics) -> WorkerProcess:
        log = tmp_path / f"{len(started)}.log"
        started.append(WorkerProcess(at, on, model, log, *more))
        return started[-1]

    yield start_one
    for worker in started:
        worker.kill()


def test_sigterm_under_load_and_a_successor_make_no_duplicates(
    broker: Broker, topics: Topics, start: Start, feed: Feed
) -> None:
    """FIELD complaint 3: duplicates at each deploy."""
    first = start(*SLOWLY)
    first.wait_ready()
    wait_until(lambda: first.published > 50, what="the first is under way")
    assert first.stop() == 0, first.log.read_text()
    second = start(*SLOWLY)
    second.wait_ready()
    wait_until(lambda: second.published > 50, what="the second is under way")
    assert second.stop() == 0, second.log.read_text()
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert verdict["consumed"] > 100
    assert (verdict["missing"], verdict["duplicated"], verdict["reordered"]) == (0, 0, 0)


def test_sigkill_under_load_duplicates_at_most_the_records_in_flight(
    broker: Broker, topics: Topics, start: Start, feed: Feed
) -> None:
    """FIELD complaint 1: committed before it was processed. A crash loses nothing."""
    first = start(*SLOWLY, "--kafka-session-timeout", "6")
    first.wait_ready()
    wait_until(lambda: first.published > 50, what="the first is under way")
    first.kill()
    if broker.kind == "embedded":
        pytest.skip("the embedded broker never lets a killed member go")
    second = start(*SLOWLY)
    second.wait_ready()
    wait_until(lambda: second.published > 50, 120, "the second has taken over")
    assert second.stop() == 0, second.log.read_text()
    verdict = audit(broker, topics)
    assert (verdict["missing"], verdict["reordered"], verdict["orphans"]) == (0, 0, 0), verdict
    # In flight, or acknowledged since the last commit.
    assert verdict["duplicated"] <= 64 + 8 * 50, verdict


def test_metrics_and_health_of_a_running_worker(
    broker: Broker, topics: Topics, start: Start
) -> None:
    worker = start()
    wait_until(lambda: worker.get("/livez")[0] == 200, what="it listens")
    assert worker.get("/readyz")[0] == 503
    worker.wait_ready()
    produce(broker, topics.input, [*texts(40), (b"k", b"\xff"), (b"k", None)])
    wait_until(lambda: worker.published == 40, what="all are published")
    wait_until(
        lambda: worker.metric("streamlabel_records_dead_lettered_total") == 2, what="two are dead"
    )
    assert worker.get("/livez") == (200, "running\n")
    assert worker.get("/readyz") == (200, "running\n")
    assert worker.get("/nothing")[0] == 404
    families = {f.name: f for f in text_string_to_metric_families(worker.get("/metrics")[1])}
    assert worker.metric("streamlabel_records_consumed_total") == 42
    (info,) = families["streamlabel_model_info"].samples
    assert (info.labels["engine"], info.labels["device"]) == ("packed", "cpu")
    wait_until(lambda: worker.metric("streamlabel_inflight_records") == 0, what="none in flight")
    assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    messages = ["model ready", "starting", "joining group", "partitions assigned", "stopped"]
    assert [line["message"] for line in lines if line["message"] in messages] == messages
    assert (lines[-1]["labelled"], lines[-1]["dead_letters"]) == (40, 2)
    assert "post number" not in worker.log.read_text()


def test_a_terminal_that_closes_and_the_signals_of_its_shell_are_one_stop(
    broker: Broker, topics: Topics, start: Start
) -> None:
    """So are the two signals of `timeout`: the drain goes on, and no record is processed twice."""
    produce(broker, topics.input, texts(200))
    worker = start(*SLOWLY)
    worker.wait_ready()
    wait_until(lambda: worker.published > 0, what="it is under way")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        worker.process.send_signal(number)
    assert worker.process.wait(60) == 0, worker.log.read_text()
    verdict = audit(broker, topics)
    assert (verdict["missing"], verdict["duplicated"], verdict["reordered"]) == (0, 0, 0), verdict


def test_a_second_signal_stops_at_once(broker: Broker, topics: Topics, start: Start) -> None:
    produce(broker, topics.input, texts(10_000, more=" and so on" * 30))
    worker = start(*AT_LENGTH)
    worker.wait_ready()
    wait_until(lambda: worker.metric("streamlabel_inflight_records") >= 4_000, what="it is busy")
    worker.process.send_signal(signal.SIGINT)
    clock.sleep(1.1)  # a signal within a second counts as the same request
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 1, worker.log.read_text()
    assert "stopping at once" in worker.log.read_text()


def run(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-P", "-m", "worker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stderr


def test_the_error_for_a_missing_topic_has_the_command_that_creates_it(
    broker: Broker, topics: Topics
) -> None:
    """It comes before the model loads, which takes seconds."""
    given = ["--bootstrap-servers", broker.bootstrap_servers, "--model", "/no-model"]
    given += ["--http-port", "0", "--group-id", topics.group, "--input-topic", topics.input]
    code, said = run("run", *given, "--output-topic", topics.output + ".no")
    assert code == 1
    assert f"topics missing on {broker.bootstrap_servers}: {topics.output}.no" in said
    assert "streamlabel topics create" in said
    assert "--create-topics" in said


def test_missing_topics_are_created_on_request(
    broker: Broker, topics: Topics, start: Start
) -> None:
    fresh = Topics(topics.input, topics.output + ".new", topics.dead + ".new", topics.group, 3)
    worker = start("--create-topics", on=fresh)
    worker.wait_ready()
    produce(broker, fresh.input, texts(10))
    wait_until(lambda: count(broker, fresh) == 10, what="all are labelled")
    assert worker.stop() == 0


def test_a_missing_model_stops_the_worker_before_it_reads_a_record(
    broker: Broker, topics: Topics, start: Start
) -> None:
    produce(broker, topics.input, texts(5))
    worker = start("--model", "/no-model")
    assert worker.process.wait(90) == 1
    assert "no directory" in worker.log.read_text()
    assert count(broker, topics) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--http-port", "70000"], "http.port = '70000': must be a whole number from 0 to 65535"),
        (["--input-topic", "texts.dead"], "the topics must differ"),
        (["--config", "/nowhere.toml"], "can't read the settings file"),
        (["--no-such-flag"], "unrecognized arguments"),
    ],
)
def test_wrong_settings_are_exit_2_and_one_message(arguments: list[str], words: str) -> None:
    code, said = run("run", *arguments)
    assert code == 2
    assert words in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_names_the_setting(
    broker: Broker, topics: Topics, start: Start
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        worker = start("--http-port", port)
        assert worker.process.wait(60) == 2
    assert f"http.port = {port}" in worker.log.read_text()


def test_the_worker_waits_for_a_broker_that_is_away_at_the_start(
    broker: Broker, topics: Topics, start: Start
) -> None:
    """It is not ready, says so, and labels once the address answers."""
    port = free_port()
    away = Broker(f"127.0.0.1:{port}", broker.kind, "away")
    worker = start("--kafka-request-timeout", "2", at=away)
    wait_until(lambda: "broker is unreachable" in worker.log.read_text(), 90, "it says so")
    status, text = worker.get("/readyz")
    assert status == 503
    assert text.startswith(f"the broker is unreachable: can't connect to Kafka at 127.0.0.1:{port}")
    assert worker.get("/livez")[0] == 200
    host, real = broker.bootstrap_servers.split(",")[0].split(":")
    with Relay(port, host, int(real)):
        worker.wait_ready()
        produce(broker, topics.input, texts(10))
        wait_until(lambda: count(broker, topics) == 10, what="all are labelled")
        assert worker.stop() == 0


class Relay:
    """Forwards a port: a broker address that starts to answer on demand."""

    def __init__(self, port: int, host: str, target: int) -> None:
        self._command = [sys.executable, "-c", _RELAY, str(port), host, str(target)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command)
        clock.sleep(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


_RELAY = """
import asyncio, sys
port, host, target = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def serve(reader, writer):
    far_reader, far_writer = await asyncio.open_connection(host, target)
    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()
asyncio.run(main())
"""
